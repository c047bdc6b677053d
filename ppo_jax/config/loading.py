"""Loading of a user's object by its text `module:attribute`."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from ppo_jax.config.errors import InputError, nearest


def load_attribute(path: str) -> Any:
    """Import `module:attribute`, for example `my_networks:small` or `package.module:Class.member`.

    The current directory is importable while the module is loaded.

    Raises:
        InputError: the text has another form, the module is missing or fails to import, or it has
            no such attribute.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise InputError(
            f"{path!r} does not name an object: write module:attribute, for example "
            "my_module:my_object."
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


def _import(module_name: str, path: str) -> Any:
    sys.path.insert(0, "")  # the current directory
    importlib.invalidate_caches()  # the module may be newer than the last import
    try:
        return importlib.import_module(module_name)
    except Exception as error:  # a user's module may raise anything
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
