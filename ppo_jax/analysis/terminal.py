"""Pictures and curves as text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_BARS = "▁▂▃▄▅▆▇█"
_SHADES = " .:-=+*#%@"


def sparkline(values: Sequence[float | None], width: int = 16) -> str:
    """Draw a curve of one line: a sign for each of `width` equal pieces, by its mean."""
    known = [x for x in values if x is not None and math.isfinite(x)]
    if len(known) < 2:
        return ""
    pieces = np.array_split(np.asarray(known, np.float64), min(width, len(known)))
    means = np.array([piece.mean() for piece in pieces])
    span = means.max() - means.min()
    heights = (means - means.min()) / span if span > 0 else np.zeros_like(means)
    return "".join(_BARS[round(height * (len(_BARS) - 1))] for height in heights)


def picture(frame: np.ndarray, columns: int, lines: int, colours: str | None) -> list[str]:
    """Draw a picture as lines of text, two pixels above each other in a sign.

    Args:
        frame: uint8 [H, W, 3]. columns, lines: the most that fit.
        colours: "truecolor", another word for 256 colours, or None for signs without colour.
    """
    from PIL import Image

    height, width = frame.shape[:2]
    scale = min(columns / width, 2 * lines / height)
    size = (max(1, int(width * scale)), 2 * max(1, int(height * scale / 2)))
    pixels = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX))
    upper, lower = pixels[0::2].astype(int), pixels[1::2].astype(int)
    if colours is None:
        dark = 1.0 - (upper + lower).mean(-1) / 510.0
        places = np.rint(dark * (len(_SHADES) - 1)).astype(int)
        return ["".join(_SHADES[place] for place in row).rstrip() for row in places]
    code = _true_colour if colours == "truecolor" else _of_256
    return [
        "".join(f"\x1b[38;{code(a)};48;{code(b)}m▀" for a, b in zip(*rows)) + "\x1b[0m"
        for rows in zip(upper, lower)
    ]


def _true_colour(pixel: np.ndarray) -> str:
    return f"2;{pixel[0]};{pixel[1]};{pixel[2]}"


def _of_256(pixel: np.ndarray) -> str:
    red, green, blue = (round(5 * part / 255) for part in pixel.tolist())
    return f"5;{16 + 36 * red + 6 * green + blue}"
