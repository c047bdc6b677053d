"""Loading of a user's object by its text `module:attribute`."""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any

from ppo_jax.config.errors import RAISED, InputError, nearest
from ppo_jax.config.values import short


def load_attribute(path: str) -> Any:
    """Import `module:attribute`, for example `my_networks:small` or `package.module:Class.member`.

    The current directory is importable while the module is loaded.

    Raises:
        InputError: the text has another form, the module is one of Python's own, is missing or
            fails to import, or it has no such attribute.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise InputError(
            f"{path!r} does not name an object: write module:attribute, for example "
            "my_module:my_object."
        )
    if _root(module_name) in sys.stdlib_module_names:
        raise InputError(
            f"{path!r} cannot be loaded: {module_name} is a part of Python itself; name an object "
            "of your own module."
        )
    value = _import(module_name, path)
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise InputError(
                f"{path!r} cannot be loaded: {module_name} has no attribute {attribute!r}; define "
                f"it there or name another one.{nearest(part, _public_names(value))}"
            )
        value = getattr(value, part)
    return value


def require_own(path: str, value: Any, what: str) -> None:
    """Refuse to call an object that only happens to lie in the module which a name means.

    Args:
        path: the name. what: the thing that is wanted, for the sentence.

    Raises:
        InputError: it cannot be called, or is defined in another package.
    """
    if not callable(value):
        raise InputError(f"{path!r} is no {what}: it is {short(value)}, which cannot be called.")
    while isinstance(value, functools.partial):
        value = value.func
    has_home = isinstance(value, type) or hasattr(value, "__qualname__")
    home = str(getattr(value if has_home else type(value), "__module__", None))
    module_name = path.partition(":")[0]
    if _root(home) != _root(module_name):
        raise InputError(
            f"{path!r} is not called, because it is no {what} of {module_name}: it is defined in "
            f"{home}; define a class or a function there, or name the one that is meant."
        )


def _root(module_name: str) -> str:
    return module_name.partition(".")[0]


def _import(module_name: str, path: str) -> Any:
    sys.path.insert(0, "")  # the current directory
    importlib.invalidate_caches()  # the module may be newer than the last import
    try:
        return importlib.import_module(module_name)
    except RAISED as error:  # a user's module may raise anything
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module_name}.".startswith(f"{missing}."):
            raise InputError(
                f"{path!r} cannot be loaded: there is no module {missing!r}; install it, or "
                "start from the folder that holds it."
            ) from error
        raise InputError(
            f"{path!r} cannot be loaded: importing {module_name} failed with "
            f"{type(error).__name__}: {error}; fix the module first."
        ) from error
    finally:
        if "" in sys.path:
            sys.path.remove("")


def _public_names(value: Any) -> list[str]:
    return [name for name in dir(value) if not name.startswith("_")]
