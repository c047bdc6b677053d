"""The table of suites: a row for each package of environments that has an adapter here.

`suite/id` names an environment, with the id that the suite itself gives it. The ids are written
out, so that a mistyped one is answered at once. An adapter is `ppo_jax/envs/suites/SUITE.py` with
`make(id) -> Environment`; it and its package are imported when one of its environments is made.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import NamedTuple

from ppo_jax.config.errors import install


class Suite(NamedTuple):
    """A row: a package of environments."""

    name: str  # stands before the slash; the names of the adapter, the extra and the package
    imported: str  # the name under which the package is imported
    summary: str
    ids: tuple[str, ...]
    python: tuple[int, int] = (3, 11)  # the oldest version on which the package runs
    is_open: bool = False  # other packages register more ids; the adapter refuses unknown ones
    shared: tuple[str, ...] = ()  # ids that gymnax has as well: without a slash they mean its own
    left_out: tuple[tuple[str, str], ...] = ()  # an id of the package, and the reason

    @property
    def is_ours(self) -> bool:
        """A suite that comes with this package, and needs no extra."""
        return self.imported == "ppo_jax"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its environments."""
        return tuple(f"{self.name}/{each}" for each in (*self.shared, *self.ids))


class Guest(NamedTuple):
    """A package without an adapter that registers its environments in Gymnasium."""

    package: str
    full: str  # an id after `gymnasium/`, with the module that registers it
    example: str  # stands in its braces
    install: str

    def name(self, own: str = "") -> str:
        """The whole name of an environment, from any part of its id."""
        core = re.sub(r"-v\d+$", "", own.rpartition("/")[2]).removeprefix(f"{self.package}-")
        return f"gymnasium/{self.full.format(core or self.example)}"


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ROWS = (
    Suite(
        "brax",
        "brax",
        "rigid bodies: locomotion, reaching, pendulums",
        (
            *("ant", "fast", "halfcheetah", "hopper", "humanoid", "humanoidstandup"),
            *("inverted_pendulum", "inverted_double_pendulum", "pusher", "reacher"),
            *("swimmer", "walker2d"),
        ),
    ),
    Suite(
        "craftax",
        "craftax",
        "an open world of crafting, and its smaller forerunner",
        (
            *("Craftax-Symbolic-v1", "Craftax-Pixels-v1"),
            *("Craftax-Classic-Symbolic-v1", "Craftax-Classic-Pixels-v1"),
        ),
    ),
    Suite(
        "gymnasium",
        "gymnasium",
        "any id that Gymnasium knows, MuJoCo's among them; stepped outside jax",
        (
            *("BipedalWalker-v3", "BipedalWalkerHardcore-v3", "CarRacing-v3"),
            *("LunarLander-v3", "LunarLanderContinuous-v3", "Blackjack-v1", "CliffWalking-v1"),
            *("CliffWalkingSlippery-v1", "FrozenLake-v1", "FrozenLake8x8-v1", "Taxi-v4"),
            *("Ant-v5", "HalfCheetah-v5", "Hopper-v5", "Humanoid-v5", "HumanoidStandup-v5"),
            *("InvertedDoublePendulum-v5", "InvertedPendulum-v5", "Pusher-v5", "Reacher-v5"),
            *("Swimmer-v5", "Walker2d-v5"),
        ),
        is_open=True,
        shared=_words("Acrobot-v1 CartPole-v1 MountainCar-v0 MountainCarContinuous-v0 Pendulum-v1"),
    ),
    Suite(
        "jumanji",
        "jumanji",
        "games, packing and routing, most with masked actions",
        (
            *("Game2048-v1", "GraphColoring-v1", "Minesweeper-v0", "SlidingTilePuzzle-v0"),
            *("RubiksCube-v0", "RubiksCube-partly-scrambled-v0", "Sudoku-v0"),
            *("Sudoku-very-easy-v0", "BinPack-v2", "FlatPack-v0", "JobShop-v0", "Knapsack-v1"),
            *("Tetris-v0", "Cleaner-v0", "Connector-v3", "MMST-v0", "CVRP-v1", "MultiCVRP-v0"),
            *("Maze-v0", "RobotWarehouse-v0", "Snake-v1", "TSP-v1", "Sokoban-v0", "PacMan-v1"),
            *("LevelBasedForaging-v0", "SearchAndRescue-v0"),
        ),
    ),
    Suite(
        "memory",
        "ppo_jax",
        "small tasks that need a memory",
        (
            *("TMaze-v0", "Recall-v0", "RepeatPrevious-v0", "RepeatFirst-v0"),
            *("CartPole-NoVelocity-v1", "Pendulum-NoVelocity-v1"),
            "MountainCarContinuous-NoVelocity-v0",
        ),
    ),
    Suite(
        "navix",
        "navix",
        "grid worlds: MiniGrid's tasks, seen from above",
        tuple(
            f"Navix-{each}-v0"
            for each in _words(
                "BlockedUnlockPickup DistShift1 DistShift2 DoorKey-5x5 DoorKey-6x6 DoorKey-8x8 "
                "DoorKey-16x16 DoorKey-Random-5x5 DoorKey-Random-6x6 DoorKey-Random-8x8 "
                "DoorKey-Random-16x16 Dynamic-Obstacles-5x5 Dynamic-Obstacles-5x5-Random "
                "Dynamic-Obstacles-6x6 Dynamic-Obstacles-6x6-Random Dynamic-Obstacles-8x8 "
                "Dynamic-Obstacles-16x16 Empty-5x5 Empty-6x6 Empty-8x8 Empty-16x16 "
                "Empty-Random-5x5 Empty-Random-6x6 Empty-Random-8x8 Empty-Random-16x16 "
                "Fetch-5x5-N2 Fetch-6x6-N2 Fetch-8x8-N3 FourRooms FourRooms-7x7 FourRooms-9x9 "
                "FourRooms-11x11 FourRooms-13x13 FourRooms-15x15 FourRooms-17x17 GoToDoor-5x5 "
                "GoToDoor-6x6 GoToDoor-8x8 GoToObject-6x6-N2 GoToObject-8x8-N2 KeyCorridorS3R1 "
                "KeyCorridorS3R2 KeyCorridorS3R3 KeyCorridorS4R3 KeyCorridorS5R3 KeyCorridorS6R3 "
                "LavaCrossingS9N1 LavaCrossingS9N2 LavaCrossingS9N3 LavaCrossingS11N5 LavaGapS5 "
                "LavaGapS6 LavaGapS7 LockedRoom MemoryS7 MemoryS9 MemoryS11 MemoryS13 "
                "MemoryS13Random MemoryS17Random MultiRoom-N2-S4 MultiRoom-N4-S5 MultiRoom-N6 "
                "ObstructedMaze-1Dl ObstructedMaze-1Dlh ObstructedMaze-1Dlhb ObstructedMaze-2Dl "
                "ObstructedMaze-2Dlh ObstructedMaze-2Dlhb ObstructedMaze-1Q ObstructedMaze-2Q "
                "ObstructedMaze-Full Playground PutNear-6x6-N2 PutNear-8x8-N3 RedBlueDoors-6x6 "
                "RedBlueDoors-8x8 SimpleCrossingS9N1 SimpleCrossingS9N2 SimpleCrossingS9N3 "
                "SimpleCrossingS11N5 Unlock UnlockPickup"
            )
        ),
        python=(3, 12),
    ),
    Suite(
        "pgx",
        "pgx",
        "board and card games against an opponent who plays at random or is given, and MinAtar",
        _words(
            "2048 animal_shogi backgammon chess connect_four gardner_chess go_9x9 go_19x19 hex "
            "kuhn_poker leduc_holdem minatar-asterix minatar-breakout minatar-freeway "
            "minatar-seaquest minatar-space_invaders othello shogi sparrow_mahjong tic_tac_toe"
        ),
        left_out=(("bridge_bidding", "bridge needs tables that are downloaded apart"),),
    ),
    Suite(
        "playground",
        "mujoco_playground",
        "DeepMind's control suite, and robots whose models are downloaded apart",
        _words(
            "AcrobotSwingup AcrobotSwingupSparse BallInCup CartpoleBalance CartpoleBalanceSparse "
            "CartpoleSwingup CartpoleSwingupSparse CheetahRun FingerSpin FingerTurnEasy "
            "FingerTurnHard FishSwim HopperHop HopperStand HumanoidStand HumanoidWalk HumanoidRun "
            "PendulumSwingup PointMass ReacherEasy ReacherHard SwimmerSwimmer6 WalkerRun "
            "WalkerStand WalkerWalk ApolloJoystickFlatTerrain BarkourJoystick "
            "BerkeleyHumanoidJoystickFlatTerrain BerkeleyHumanoidJoystickRoughTerrain "
            "G1JoystickFlatTerrain G1JoystickRoughTerrain Go1JoystickFlatTerrain "
            "Go1JoystickRoughTerrain Go1Getup Go1Handstand Go1Footstand H1InplaceGaitTracking "
            "H1JoystickGaitTracking Op3Joystick SpotFlatTerrainJoystick SpotGetup "
            "SpotJoystickGaitTracking T1JoystickFlatTerrain T1JoystickRoughTerrain AlohaHandOver "
            "AlohaSinglePegInsertion PandaPickCube PandaPickCubeOrientation "
            "PandaPickCubeCartesian PandaOpenCabinet PandaRobotiqPushCube LeapCubeReorient "
            "LeapCubeRotateZAxis AeroCubeRotateZAxis"
        ),
    ),
    Suite(
        "xminigrid",
        "xminigrid",
        "grid worlds: MiniGrid's tasks and XLand-MiniGrid's rooms",
        (
            *(f"MiniGrid-Empty-{size}" for size in ("5x5", "6x6", "8x8", "16x16")),
            *(f"MiniGrid-EmptyRandom-{size}" for size in ("5x5", "6x6", "8x8", "16x16")),
            *(f"MiniGrid-DoorKey-{size}" for size in ("5x5", "6x6", "8x8", "16x16")),
            *(f"MiniGrid-MemoryS{size}" for size in (8, 16, 32, 64, 128)),
            *("MiniGrid-BlockedUnlockPickUp", "MiniGrid-FourRooms", "MiniGrid-LockedRoom"),
            *("MiniGrid-Playground", "MiniGrid-Unlock", "MiniGrid-UnlockPickUp"),
            *(f"XLand-MiniGrid-R{n}-{k}x{k}" for n in (1, 2, 4) for k in (9, 11, 13, 15, 17)),
            *(f"XLand-MiniGrid-R6-{size}" for size in ("13x13", "17x17", "19x19")),
            *(f"XLand-MiniGrid-R9-{size}" for size in ("16x16", "19x19", "25x25")),
        ),
    ),
)
SUITES: Mapping[str, Suite] = {row.name: row for row in _ROWS}

_ATARI = Guest("ale-py", "ale_py:ALE/{}-v5", "Pong", "pip install ale-py")
_POPGYM = Guest("popgym", "popgym:popgym-{}-v0", "RepeatPreviousEasy", install("popgym"))
# Words by which people name them, in lower case
GUESTS: Mapping[str, Guest] = {
    **dict.fromkeys(("ale", "ale_py", "ale-py", "atari"), _ATARI),
    "popgym": _POPGYM,
}


def is_suite_name(env: str) -> bool:
    """Check whether a text has the form `suite/id`: a slash before any colon."""
    return "/" in env.partition(":")[0]


def is_installed(suite: Suite) -> bool:
    """Check whether the package of a suite can be imported, without importing it."""
    if suite.imported in sys.modules:
        return True
    spec = find_spec(suite.imported)
    return spec is not None and spec.origin is not None  # a mere folder of that name has none


def install_hint(suite: Suite) -> str:
    """The remedy if a suite is not installed, as the end of a sentence."""
    command = install(suite.name)
    if sys.version_info < suite.python:
        oldest = ".".join(map(str, suite.python))
        return f"its package asks for Python {oldest} or later, and there {command}"
    return command


def all_names() -> list[str]:
    """The names of all environments of all suites, without those that gymnax has as well."""
    return [f"{suite.name}/{each}" for suite in SUITES.values() for each in suite.ids]
