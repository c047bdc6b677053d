"""Place and format of an export, checked before jax is loaded."""

from __future__ import annotations

import os
from pathlib import Path

from ppo_jax.config.errors import InputError, nearest

# Format -> how its file's name ends; the numpy format is a folder.
FORMATS = {"numpy": "", "stablehlo": ".stablehlo", "onnx": ".onnx"}


def choose(run: Path, member: int, format: str | None, out: Path | None) -> tuple[str, Path]:
    """The format and the place of an export.

    Args:
        format: a name of FORMATS; None follows the end of `out`, and is numpy without it.
        out: the file or folder to be made; None for `policy-MEMBER` in the run's folder.

    Raises:
        InputError: an unknown format, one that contradicts `out`, or a place that is taken.
    """
    if format is not None and format not in FORMATS:
        raise InputError(
            f"format={format!r} is not one of {', '.join(FORMATS)}." + nearest(format, FORMATS)
        )
    if out is None:
        format = format or "numpy"
        out = run / f"policy-{member}{FORMATS[format]}"
    named = {ending: name for name, ending in FORMATS.items()}.get(out.suffix.lower(), "numpy")
    if format is None and named == "numpy" and out.suffix:
        endings = " or ".join(filter(None, FORMATS.values()))
        raise InputError(
            f"out={str(out)!r} ends as no format does: end it in {endings}, or give --format numpy "
            "for a folder of that name."
        )
    format = format or named
    if format != named:
        wanted = f"end in {FORMATS[format]}" if FORMATS[format] else "name a folder"
        raise InputError(f"out={str(out)!r} does not fit format {format!r}: it must {wanted}.")
    if out.exists():
        raise InputError(f"out={str(out)!r} exists already: name a new place.")
    parent = out.absolute().parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(
            f"out={str(out)!r} cannot be written, because {str(parent)!r} is no writable folder: "
            "name a place in another one."
        )
    return format, out
