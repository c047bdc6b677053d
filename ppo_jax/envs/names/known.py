"""Checks of an environment's name, and the sentence for each wrong one.

No jax, gymnax or suite is imported.
"""

from __future__ import annotations

from ppo_jax.config.errors import InputError, name_nearest, nearest
from ppo_jax.envs import suite_table as table
from ppo_jax.envs.names.closest import find_closest, split
from ppo_jax.envs.suite_table import Suite
from ppo_jax.envs.suites.gymnax import names as gymnax_names

BUILT_IN = ("gymnax", "probe")  # always there, with names that have no slash


def is_known(env: str) -> bool:
    """Check for a name of gymnax, or for one in the table of suites."""
    suite = table.SUITES.get(split(env)[0])
    return env in gymnax_names.registered_names() or (suite is not None and env in suite.names)


def find_suite(name: str) -> Suite:
    """The row of a suite.

    Raises:
        InputError: no such suite; the sentence has the nearest ones.
    """
    if name in table.SUITES:
        return table.SUITES[name]
    if is_known(name):
        raise InputError(
            f"{name!r} is an environment and no suite: `ppo-jax doctor {name}` checks and "
            "describes it."
        )
    raise _of_a_guest(name) or _no_suite(name, _nearest(name) if "/" in name else "")


def split_known(env: str) -> tuple[Suite, str]:
    """Split `suite/id`, and refuse what is unknown, whether the suite is installed or not.

    Raises:
        InputError: with the nearest names.
    """
    head, _, own = env.partition("/")
    suite = table.SUITES.get(head)
    if suite is None or not own:
        raise _unknown(env)
    if reason := dict(suite.left_out).get(own):
        raise InputError(f"{env!r} is left out, as {reason}: `ppo-jax envs {head}` lists the rest.")
    if env not in suite.names and not suite.is_open:
        raise InputError(
            f"{env!r} is no environment of the suite {head}: `ppo-jax envs {head}` lists them."
            f"{_nearest(env)}"
        )
    return suite, own


def require_known(env: str) -> tuple[Suite, str]:
    """Split `suite/id`, and refuse what is unknown or not installed.

    Raises:
        InputError: with the nearest names, or with the command that installs the suite.
    """
    suite, own = split_known(env)
    if not table.is_installed(suite):
        raise InputError(
            f"{env!r} needs the package {suite.name}, which is not installed: "
            f"{table.install_hint(suite)}."
        )
    return suite, own


def require_colon(env: str) -> None:
    """Refuse a name without a slash, unless it may be `module:attribute` of the user.

    Raises:
        InputError: the sentence has the name in its right form, or the nearest ones.
    """
    head, colon, own = env.partition(":")
    if not colon:
        raise _unknown(env)
    if head in table.SUITES:
        name = f"{head}/{own}"
        is_named = name in table.SUITES[head].names
        raise InputError(
            f"{env!r} has a colon, which stands in names of your own modules: an environment of "
            f"the suite {head} has a slash, {name if is_named else f'{head}/ID'}."
            f"{'' if is_named else _nearest(name)}"
        )


def _unknown(env: str) -> InputError:
    """The error for a name that stands in no list."""
    head, own = split(env)
    if not head and own.lower() in (*table.SUITES, *BUILT_IN):
        return InputError(
            f"{env!r} is a suite: name one of its environments, which `ppo-jax envs {own.lower()}` "
            "lists."
        )
    if error := _of_a_guest(env):
        return error
    if head.lower() in BUILT_IN:
        return _without_slash(env)
    found = find_closest(env)
    if found.is_same:
        return InputError(
            f"{env!r} is not the exact name of an environment: write {' or '.join(found.names)}."
        )
    if head:
        return _no_suite(head, _nearest(env))
    return InputError(
        f"{env!r} is no environment that is known here: `ppo-jax envs` lists them, and "
        f"module:attribute names one of your own.{_nearest(env)}"
    )


def _of_a_guest(env: str) -> InputError | None:
    """The error for a package, or an id of one, that Gymnasium makes."""
    head, own = split(env)
    guest = table.GUESTS.get((head or own).lower())
    if guest is None:
        return None
    return InputError(
        f"{env!r} is no name here, because Gymnasium makes the environments of {guest.package}: "
        f"{guest.install}, and write {guest.name(own if head else '')}."
    )


def _without_slash(env: str) -> InputError:
    """The error for `gymnax/ID` and `probe/ID`."""
    head, own = split(env)
    found, start = find_closest(env), f"{env!r} has a slash, and names of {head.lower()} have none"
    if head.lower() == "probe":
        return InputError(f"{start}: write probe:{own}.")
    if found.is_same:
        return InputError(f"{start}: write {' or '.join(found.names)}.")
    return InputError(f"{start}: `ppo-jax envs gymnax` lists them.{_nearest(env)}")


def _no_suite(name: str, hint: str = "") -> InputError:
    return InputError(
        f"{name!r} is no suite of environments: there are {', '.join(table.SUITES)}, and an "
        f"environment of your own is package.module:attribute."
        f"{hint or nearest(name, (*table.SUITES, *BUILT_IN))}"
    )


def _nearest(env: str) -> str:
    return name_nearest(find_closest(env).names)
