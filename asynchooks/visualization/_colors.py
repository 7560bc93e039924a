"""Colors as matplotlib's and MMEngine's users write them, as three bytes: red, green, blue. Pure."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any, TypeAlias

from asynchooks.errors import ConfigError

__all__ = ["RGB", "color_of", "colors_of", "palette_of"]

RGB: TypeAlias = tuple[int, int, int]

_LETTERS: dict[str, RGB] = {
    "r": (255, 0, 0),
    "g": (0, 128, 0),
    "b": (0, 0, 255),
    "c": (0, 191, 191),
    "m": (191, 0, 191),
    "y": (191, 191, 0),
    "k": (0, 0, 0),
    "w": (255, 255, 255),
}
_GOLDEN = 0.618033988749895  # hues that many steps apart stay apart, however many there are


def color_of(color: Any) -> RGB | None:
    """Return a color: a letter, a name, ``#rrggbb``, or three numbers from 0 to 255; None for "none".

    Raises:
        ConfigError: no such color.
    """
    if color is None or color == "none":
        return None
    if isinstance(color, str):
        return _LETTERS.get(color) or _named(color)
    channels = (
        [int(channel) for channel in color]
        if isinstance(color, Sequence) or hasattr(color, "__iter__")
        else []
    )
    if len(channels) != 3 or not all(0 <= channel <= 255 for channel in channels):
        raise ConfigError(f"A color is a name, '#rrggbb' or three numbers from 0 to 255, not {color!r}.")
    return channels[0], channels[1], channels[2]


def colors_of(colors: Any, count: int) -> list[RGB | None]:
    """Return one color for each of so many things: one for all, or as many as there are.

    Raises:
        ConfigError: another number of colors.
    """
    if isinstance(colors, list) and not (len(colors) == 3 and all(isinstance(c, int) for c in colors)):
        if len(colors) != count:
            raise ConfigError(f"{count} things to draw have {len(colors)} colors; give one, or one for each.")
        return [color_of(color) for color in colors]
    return [color_of(colors)] * count


def palette_of(palette: Any, label: int) -> RGB:
    """Return the color of a class: of the data set's palette, or, where that has none, of one that never ends."""
    if isinstance(palette, str) and palette != "random":
        return color_of(palette) or (0, 0, 0)
    if isinstance(palette, tuple) and len(palette) == 3 and all(isinstance(c, int) for c in palette):
        return color_of(palette) or (0, 0, 0)
    if palette is not None and not isinstance(palette, str) and 0 <= label < len(palette):
        return color_of(palette[label]) or (0, 0, 0)
    red, green, blue = colorsys.hsv_to_rgb(label * _GOLDEN % 1.0, 0.75, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def _named(color: str) -> RGB:
    from PIL import ImageColor

    try:
        return ImageColor.getrgb(color)[:3]
    except ValueError as error:
        raise ConfigError(f"There is no color {color!r}; give a name, '#rrggbb' or three numbers.") from error
