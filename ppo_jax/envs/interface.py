"""The environment contract: unbatched, explicit, and never resetting by itself.

`reset(key, params) -> (observation, state)`
`transition(key, state, action, params)
    -> (observation, state, reward, terminated, truncated, info)`

The rollout owns resets and time limits' bootstrap, so a transition returns the true successor even
where the episode ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

from ppo_jax.config.errors import InputError


class Discrete(NamedTuple):
    """Actions 0 .. n-1."""

    n: int


class MultiDiscrete(NamedTuple):
    """One action of each of several discrete sets."""

    ns: tuple[int, ...]


class Box(NamedTuple):
    """Real arrays between `low` and `high` (numpy arrays of `shape`, may be infinite)."""

    shape: tuple[int, ...]
    low: Any
    high: Any


class Product(NamedTuple):
    """Several actions at once: a tuple with the action of each part."""

    parts: tuple[Discrete | MultiDiscrete | Box, ...]


ActionSpace: TypeAlias = Discrete | MultiDiscrete | Box | Product


class ObservationSpace(NamedTuple):
    """The space that an environment declares for one leaf, before its observations are cast."""

    shape: tuple[int, ...]
    dtype: str
    low: Any  # broadcasts to `shape`
    high: Any
    is_number: bool  # a whole number in low .. high, which is stored one-hot
    is_whole: bool = False  # whole numbers, declared and returned; bounded ones are coded


class Raw(NamedTuple):
    """An environment's own words, before the cast to the contract; the diagnosis reads them."""

    # Declared for one array, or for each leaf by its name (`leaves.named`)
    observation_space: ObservationSpace | dict[str, ObservationSpace]
    reset: Callable[[Any, Any], Any]  # (key, params) -> observation
    transition: Callable[[Any, Any, Any, Any], tuple[Any, Any, Any]]
    # (key, state, action, params) -> (observation, terminated, truncated), both flags as they came
    action_form: dict[str, Any] | None = None  # `actions.own_action` reads it; None if it is ours


class HostStep(NamedTuple):
    """One step of B environments outside jax, as NumPy arrays; those that ended are reset."""

    observation: Any  # [B, ...], the environment's own, of the next step
    final: Any  # [B, ...], the true successor, before any reset
    reward: Any  # [B], float32
    terminated: Any  # [B], bool
    truncated: Any  # [B], bool
    cut: Any  # [B], bool: ended by `cut_at` alone


class HostVector(Protocol):
    """B environments that are stepped outside jax; their state is in no checkpoint."""

    def reset(self, seed: int) -> Any:
        """Begin anew: the first observations [B, ...]; environment i has the seed `seed + i`."""
        ...

    def step(self, action: Any) -> HostStep:
        """Take one step; actions [B, ...] in the environment's own form."""
        ...

    def pictures(self) -> Any:
        """Pictures of the first environment since the last call, RGB uint8, before any reset."""
        ...

    def close(self) -> None:
        """Free what the environments hold; they can be closed twice."""
        ...


class Host(NamedTuple):
    """An environment that lives outside jax: `reset` returns zeros, and `transition` refuses."""

    # (number, params, for_pictures, cut_at) -> B environments. Pictures are drawn of the first; an
    # episode of `cut_at` steps (None: never) is cut
    make: Callable[[int, Any, bool, int | None], HostVector]
    encode: Callable[[Any], Any]  # one observation of its own -> the stored one; traced
    observation: Any  # shapes and dtypes of one observation of its own
    check: Callable[[], list[str]]  # sentences of its own library's checker


ACTION_MASK = "action_mask"  # leaf of a dict observation: bool [n], True for a legal action
ACTOR, CRITIC = "actor", "critic"  # parts of a dict observation that the other one does not see


class _Fields(NamedTuple):
    name: str
    reset: Callable[[Any, Any], tuple[Any, Any]]
    transition: Callable[[Any, Any, Any, Any], tuple[Any, Any, Any, Any, Any, Any]]
    default_params: Any  # a pytree of numbers
    observation: Any  # pytree of jax.ShapeDtypeStruct, of one environment
    action_space: ActionSpace  # under default_params
    # The time limit in steps, or params -> it, called with numbers and never traced; None if none
    max_episode_steps: int | Callable[[Any], int | None] | None
    override: Callable[[Any, dict], Any]  # (params, {name: value}) -> params, refuses unknown names
    render: Callable[[Any, Any], Any] | None = None  # (state, params) -> RGB uint8, on the host
    # params -> (low, high) of a Box, or of all boxes of a Product as one vector; may be traced.
    # None if the bounds depend on no parameter
    action_bounds: Callable[[Any], tuple[Any, Any]] | None = None
    raw: Raw | None = None  # None if it returns the contract's own types
    host: Host | None = None  # None if it is pure and compiled with the rest
    # info -> {name: number []}, read at the last transition of each episode and averaged over the
    # episodes that ended; None if there is nothing but return and length
    metrics: Callable[[Any], Mapping[str, Any]] | None = None
    # "deterministic" or "sampled": how an evaluation acts unless it is told; grid worlds, whose
    # deterministic policies may stall, and suites that publish sampled episodes are sampled
    evaluation_mode: str = "deterministic"
    # A step takes a CPU longer than its share of an update, as with bodies and contacts: a seed's
    # environments are then spread over CPU devices from smaller minibatches on
    is_heavy: bool = False
    # (name of a leaf, lowest, highest value) of leaves that hold whole numbers, where they are
    # known. An adapter with `raw` has them in its spaces
    integers: tuple[tuple[str, int, int], ...] = ()


class Environment(_Fields):
    """A static object of pure functions; every number it may vary is in `params`.

    `observation` may be any pytree of shapes and dtypes. For one array, `observation_shape` and
    `observation_dtype` may be given in its place. Grids are stored as they are, such as "uint8".
    A leaf `action_mask` of a dict or named tuple, bool [n], tells legal actions from illegal ones;
    the masks of several dials stand side by side, [sum(ns)].

    A part `critic` of a dict or named tuple is seen by the critic alone, and then a part `actor`
    by the actor alone; other leaves by both. A policy that was trained so needs no part `critic`.
    """

    __slots__ = ()

    def __new__(
        cls,
        *values: Any,
        observation_shape: tuple[int, ...] | None = None,
        observation_dtype: str = "float32",
        **fields: Any,
    ) -> Environment:
        if observation_shape is not None:
            import jax  # late: names of environments are checked without it

            dtype = jax.numpy.dtype(observation_dtype)
            fields["observation"] = jax.ShapeDtypeStruct(tuple(observation_shape), dtype)
        return super().__new__(cls, *values, **fields)

    @property
    def observation_shape(self) -> Any:
        """The shape of an observation that is one array; a tree of shapes for a tree."""
        import jax

        return jax.tree.map(lambda leaf: tuple(leaf.shape), self.observation)

    @property
    def observation_dtype(self) -> Any:
        """The dtype's name of an observation that is one array; a tree of names for a tree."""
        import jax

        return jax.tree.map(lambda leaf: leaf.dtype.name, self.observation)


def time_limit(environment: Environment, params: Any) -> int | None:
    """The time limit in steps under `params`, None if there is none."""
    limit = environment.max_episode_steps
    return limit(params) if callable(limit) else limit


def refuse_host(environment: Environment, what: str, remedy: str) -> None:
    """Refuse a use that only pure environments have.

    Raises:
        InputError: `environment` is stepped outside jax.
    """
    if environment.host is not None:
        raise InputError(f"{environment.name} is stepped outside jax, so {what}: {remedy}.")


def without_action_mask(observation: Any) -> Any:
    """The observation without its leaf `action_mask`: what a network sees."""
    return _without(observation, ACTION_MASK)


def has_views(observation: Any) -> bool:
    """Check for an observation with a part that the critic alone sees."""
    return CRITIC in (_fields_of(observation) or ())


def actor_view(observation: Any) -> Any:
    """The observation without the critic's own part."""
    return _without(observation, CRITIC) if has_views(observation) else observation


def critic_view(observation: Any) -> Any:
    """The observation without the actor's own part, if the critic has one."""
    return _without(observation, ACTOR) if has_views(observation) else observation


def action_mask(observation: Any) -> Any | None:
    """The leaf `action_mask` of a dict or named tuple, None if there is none."""
    fields = _fields_of(observation)
    return None if fields is None else fields.get(ACTION_MASK)


def _without(observation: Any, dropped: str) -> Any:
    fields = _fields_of(observation)
    if fields is None or dropped not in fields:
        return observation
    return {name: leaf for name, leaf in fields.items() if name != dropped}


def _fields_of(observation: Any) -> Mapping[str, Any] | None:
    """The fields of a dict or named tuple, None for anything else."""
    if isinstance(observation, Mapping):
        return observation
    is_named = isinstance(observation, tuple) and hasattr(observation, "_asdict")
    return observation._asdict() if is_named else None  # pyright: ignore[reportAttributeAccessIssue]
