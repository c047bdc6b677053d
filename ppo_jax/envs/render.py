"""Pictures of environment states: uint8 RGB arrays [H, W, 3], drawn on the host with Pillow.

gymnax draws classic control with pygame, which it does not install, and the rest with matplotlib,
a figure a frame. These are drawn here; an environment that is not known is drawn by its own
`render` (a matplotlib figure) or, if its observation is a grid, as that grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import jax
import numpy as np

from ppo_jax.config.errors import InputError

Renderer = Callable[[Any, Any], np.ndarray]

_INK, _FAINT, _PAPER = (40, 44, 52), (176, 182, 190), (255, 255, 255)
_BLUE, _RED, _GREEN, _AMBER = (52, 101, 164), (204, 62, 68), (64, 145, 88), (230, 159, 0)
# One colour a channel of a grid, distinct also for colour-blind eyes (Okabe and Ito, extended).
_CHANNELS = np.array(
    [
        (240, 228, 66), (86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167),
        (213, 94, 0), (0, 114, 178), (140, 140, 140), (255, 255, 255), (170, 80, 220),
    ],
    np.uint8,
)  # fmt: skip


class _Canvas:
    """A drawing whose coordinates are the environment's own; y points up."""

    def __init__(self, width: int, height: int, x: tuple[float, float], y: tuple[float, float]):
        from PIL import Image, ImageDraw

        self.width, self.height, self.smooth = width, height, 3
        self._image = Image.new("RGB", (width * self.smooth, height * self.smooth), _PAPER)
        self._draw = ImageDraw.Draw(self._image)
        self._x, self._y = x, y
        self.scale = width / (x[1] - x[0])  # pixels per unit of x

    def _pixel(self, point: Any) -> tuple[float, float]:
        across = (float(point[0]) - self._x[0]) / (self._x[1] - self._x[0])
        up = (float(point[1]) - self._y[0]) / (self._y[1] - self._y[0])
        return across * self.width * self.smooth, (1.0 - up) * self.height * self.smooth

    def line(self, points: Any, width: float, colour: tuple = _INK) -> None:
        pixels = [self._pixel(point) for point in points]
        self._draw.line(pixels, colour, round(width * self.smooth), joint="curve")
        for pixel in (pixels[0], pixels[-1]):
            self._disc(pixel, width / 2 * self.smooth, colour)

    def disc(self, centre: Any, radius: float, colour: tuple = _INK) -> None:
        """`radius` in pixels."""
        self._disc(self._pixel(centre), radius * self.smooth, colour)

    def _disc(self, pixel: tuple[float, float], radius: float, colour: tuple) -> None:
        self._draw.ellipse(
            (pixel[0] - radius, pixel[1] - radius, pixel[0] + radius, pixel[1] + radius), colour
        )

    def box(self, left: float, bottom: float, right: float, top: float, colour: tuple) -> None:
        self._draw.rectangle((*self._pixel((left, top)), *self._pixel((right, bottom))), colour)

    def array(self) -> np.ndarray:
        return np.asarray(self._image.reduce(self.smooth), np.uint8)


def _cartpole(_: Any, state: Any, params: Any) -> np.ndarray:
    limit = float(params.x_threshold)
    canvas = _Canvas(480, 320, (-1.1 * limit, 1.1 * limit), (-1.0, 2.52))
    canvas.line([(-limit, 0), (limit, 0)], 2, _FAINT)
    for end in (-limit, limit):
        canvas.line([(end, -0.12), (end, 0.12)], 2, _RED)
    x, angle, length = float(state.x), float(state.theta), 2 * float(params.length)
    canvas.box(x - 0.32, -0.15, x + 0.32, 0.15, _INK)
    tip = (x + 1.4 * length * math.sin(angle), 1.4 * length * math.cos(angle))
    canvas.line([(x, 0.0), tip], 8, _AMBER)
    canvas.disc((x, 0.0), 4, _BLUE)
    return canvas.array()


def _pendulum(_: Any, state: Any, params: Any) -> np.ndarray:
    canvas = _Canvas(320, 320, (-1.5, 1.5), (-1.5, 1.5))
    angle = float(state.theta)  # from upright, counter-clockwise
    canvas.line([(0, 0), (-math.sin(angle), math.cos(angle))], 22, _RED)
    canvas.disc((0, 0), 6, _INK)
    push = float(state.last_u) / float(params.max_torque)
    start = (math.cos(math.pi / 2), math.sin(math.pi / 2))
    turns = np.linspace(math.pi / 2, math.pi / 2 + push * math.pi / 2, 24)
    arc = [(1.3 * math.cos(turn), 1.3 * math.sin(turn)) for turn in turns]
    canvas.line(arc, 5, _BLUE)
    canvas.disc((1.3 * start[0], 1.3 * start[1]), 4, _INK)
    return canvas.array()


def _mountain_car(_: Any, state: Any, params: Any) -> np.ndarray:
    low, high = float(params.min_position), float(params.max_position)

    def road(x: Any) -> Any:
        return np.sin(3 * x) * 0.45 + 0.55

    canvas = _Canvas(480, 320, (low, high), (-0.05, 1.15))
    xs = np.linspace(low, high, 120)
    canvas.line(list(zip(xs, road(xs), strict=True)), 3, _FAINT)
    goal = float(params.goal_position)
    canvas.line([(goal, road(goal)), (goal, road(goal) + 0.13)], 2)
    canvas.box(goal, road(goal) + 0.08, goal + 0.06, road(goal) + 0.13, _GREEN)
    x = float(state.position)
    canvas.disc((x, road(x) + 0.04), 12, _RED)
    canvas.disc((x + 0.03 * np.sign(float(state.velocity)), road(x) + 0.04), 4, _PAPER)
    return canvas.array()


def _acrobot(_: Any, state: Any, params: Any) -> np.ndarray:
    first, second = float(params.link_length_1), float(params.link_length_2)
    reach = 1.1 * (first + second)
    canvas = _Canvas(320, 320, (-reach, reach), (-reach, reach))
    canvas.line([(-reach, 1.0), (reach, 1.0)], 2, _GREEN)
    inner = float(state.joint_angle1)
    outer = inner + float(state.joint_angle2)
    elbow = (first * math.sin(inner), -first * math.cos(inner))
    tip = (elbow[0] + second * math.sin(outer), elbow[1] - second * math.cos(outer))
    canvas.line([(0, 0), elbow], 14, _BLUE)
    canvas.line([elbow, tip], 14, _AMBER)
    for joint in ((0, 0), elbow):
        canvas.disc(joint, 5)
    return canvas.array()


def _reacher(_: Any, state: Any, __: Any) -> np.ndarray:
    angles = np.asarray(state.angles)
    steps = np.stack([np.cos(angles), np.sin(angles)], -1)
    joints = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])
    reach = len(angles) * 1.1
    canvas = _Canvas(320, 320, (-reach, reach), (-reach, reach))
    canvas.disc(state.goal_xy, 10, _GREEN)
    canvas.line(list(joints), 10, _BLUE)
    for joint in joints:
        canvas.disc(joint, 6)
    return canvas.array()


def _swimmer(_: Any, state: Any, __: Any) -> np.ndarray:
    canvas = _Canvas(320, 320, (-1.6, 1.6), (-1.6, 1.6))
    for urchin in np.asarray(state.urchin_xys):
        canvas.disc(urchin, 16, _INK)
    canvas.disc(state.goal_xy, 10, _GREEN)
    canvas.disc(state.xy, 8, _RED)
    return canvas.array()


def _point_robot(_: Any, state: Any, params: Any) -> np.ndarray:
    radius = float(params.circle_radius)
    canvas = _Canvas(480, 288, (-1.25 * radius, 1.25 * radius), (-0.25 * radius, 1.25 * radius))
    turns = np.linspace(0, math.pi, 60)
    canvas.line([(radius * math.cos(t), radius * math.sin(t)) for t in turns], 2, _FAINT)
    canvas.disc(state.goal, float(params.goal_radius) * canvas.scale, _GREEN)
    canvas.disc(state.pos, 8, _RED)
    return canvas.array()


def _maze(env: Any, state: Any, _: Any) -> np.ndarray:
    walls = np.asarray(env.occupied_map) > 0
    picture = np.where(walls[..., None], np.array(_INK, np.uint8), np.array(_PAPER, np.uint8))
    for place, colour in ((state.goal, _GREEN), (state.pos, _RED)):
        picture[int(place[0]), int(place[1])] = colour
    return enlarged(picture)


def _frozen_lake(env: Any, state: Any, _: Any) -> np.ndarray:
    # Tiles in gymnax's order: start, frozen, hole, goal.
    from gymnax.environments.misc import frozen_lake

    colours = {frozen_lake.HOLE: _BLUE, frozen_lake.GOAL: _GREEN}
    tiles = np.asarray(env.desc)
    picture = np.full((*tiles.shape, 3), (225, 238, 247), np.uint8)
    for tile, colour in colours.items():
        picture[tiles == tile] = colour
    row, column = divmod(int(state.position), tiles.shape[1])
    frame = enlarged(picture)
    size = frame.shape[0] // tiles.shape[0]
    edge = size // 4
    frame[
        row * size + edge : (row + 1) * size - edge,
        column * size + edge : (column + 1) * size - edge,
    ] = _RED
    return frame


def grid_picture(grid: Any) -> np.ndarray:
    """A grid [H, W] or [H, W, C] as a picture: a colour a channel, the last lit channel on top."""
    grid = np.asarray(grid)
    grid = grid[..., None] if grid.ndim == 2 else grid
    if grid.dtype == np.uint8 and grid.shape[-1] in (1, 3):
        return enlarged(np.broadcast_to(grid, (*grid.shape[:2], 3)))
    picture = np.full((*grid.shape[:2], 3), 18, np.uint8)
    for channel in range(grid.shape[-1]):
        lit = grid[..., channel] > 0
        picture[lit] = _CHANNELS[channel % len(_CHANNELS)]
    return enlarged(picture)


def enlarged(picture: np.ndarray) -> np.ndarray:
    """Whole pixels a cell; sides are multiples of 16, as video encoders ask for."""
    size = 16 * max(1, -(-320 // (16 * max(picture.shape[:2]))))
    return np.repeat(np.repeat(picture, size, 0), size, 1).astype(np.uint8)


# gymnax's class -> how its state is drawn
_DRAWINGS: dict[str, Callable[[Any, Any, Any], np.ndarray]] = {
    "gymnax.environments.classic_control.cartpole.CartPole": _cartpole,
    "gymnax.environments.classic_control.pendulum.Pendulum": _pendulum,
    "gymnax.environments.classic_control.mountain_car.MountainCar": _mountain_car,
    "gymnax.environments.classic_control.continuous_mountain_car.ContinuousMountainCar": (
        _mountain_car
    ),
    "gymnax.environments.classic_control.acrobot.Acrobot": _acrobot,
    "gymnax.environments.misc.reacher.Reacher": _reacher,
    "gymnax.environments.misc.swimmer.Swimmer": _swimmer,
    "gymnax.environments.misc.point_robot.PointRobot": _point_robot,
    "gymnax.environments.misc.rooms.FourRooms": _maze,
    "gymnax.environments.misc.meta_maze.MetaMaze": _maze,
    "gymnax.environments.misc.frozen_lake.FrozenLake": _frozen_lake,
}


def renderer(env: Any, observation_shape: tuple[int, ...]) -> Renderer | None:
    """Find the drawing of states of the gymnax-API object `env`, None if there is none.

    The drawing takes one unbatched (state, params) and returns uint8 [H, W, 3].
    """
    bases = [f"{base.__module__}.{base.__qualname__}" for base in type(env).__mro__]
    drawing = next((_DRAWINGS[base] for base in bases if base in _DRAWINGS), None)
    if drawing is not None:
        return lambda state, params: drawing(env, *jax.device_get((state, params)))
    own = callable(getattr(type(env), "render", None))
    if own and not type(env).__module__.startswith("gymnax."):
        return lambda state, params: _figure_picture(env.render(state, params))
    height, width = (*observation_shape, 0, 0)[:2]
    if _observes(type(env)) and len(observation_shape) in (2, 3) and min(height, width) > 3:
        return lambda state, params: grid_picture(
            env.observe(jax.random.key(0), state, None, params)
        )
    return None


def _observes(kind: type) -> bool:
    """Check for a method that shows a state; gymnax's own one needs a `get_obs` of the class."""

    def is_own(name: str) -> bool:
        owner = next((base for base in kind.__mro__ if name in vars(base)), None)
        return owner is not None and owner.__module__ != "gymnax.environments.environment"

    return is_own("observe") or (hasattr(kind, "observe") and is_own("get_obs"))


def mujoco_picture(name: str, model: Any) -> Callable[[Any, Any], np.ndarray]:
    """The drawing of a MuJoCo model by MuJoCo's renderer: (qpos, qvel) -> uint8 [240, 320, 3].

    Raises:
        InputError: from the drawing, without OpenGL.
    """

    @cache
    def stage() -> tuple[Any, Any, Any]:
        mujoco = import_module("mujoco")
        try:
            return mujoco, mujoco.Renderer(model, 240, 320), mujoco.MjData(model)
        except Exception as error:  # each of its ways to OpenGL fails in another way
            raise InputError(
                f"{name} cannot be drawn here, as MuJoCo finds no OpenGL "
                f"({type(error).__name__}: {error}): install libegl1 and set MUJOCO_GL=egl, or "
                "leave --video out."
            ) from error

    def draw(qpos: Any, qvel: Any) -> np.ndarray:
        mujoco, renderer, data = stage()
        data.qpos[:], data.qvel[:] = np.asarray(qpos), np.asarray(qvel)
        mujoco.mj_forward(model, data)
        renderer.update_scene(data, camera=0 if model.ncam else -1)
        return renderer.render()

    return draw


def _figure_picture(result: Any) -> np.ndarray:
    """Convert the result of an environment's own `render`: an RGB array, or (figure, axes)."""
    if isinstance(result, np.ndarray):
        return result.astype(np.uint8)
    from matplotlib import pyplot
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = result[0]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    pyplot.close(figure)
    return picture
