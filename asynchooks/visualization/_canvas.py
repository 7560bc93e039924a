"""A drawing: boxes, texts, lines, points, circles, polygons and masks over an image. Pillow draws.

Every shape is blended with what lies below it by its own opacity. One thread at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from asynchooks.errors import ConfigError
from asynchooks.visualization._colors import RGB, color_of, colors_of
from asynchooks.visualization._dashes import circle_path, closed, pattern_of, strokes
from asynchooks.visualization._image import array_of, image_of

if TYPE_CHECKING:
    from asynchooks.visualization._backend import Image

__all__ = ["Canvas", "ShapeStyle"]

Points: TypeAlias = NDArray[np.float64]
Paint: TypeAlias = Callable[[Any, Points, int], None]
Shape: TypeAlias = Literal["rectangle", "polygon", "ellipse"]

_VERTICAL = {"top": "a", "center": "m", "bottom": "d"}
_HORIZONTAL = {"left": "l", "center": "m", "right": "r"}
_BLACK: RGB = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Inked:
    """How one shape is drawn: its edge and its face, None for none, and their opacity."""

    edge: RGB | None
    line_style: str
    width: int
    face: RGB | None
    alpha: float


@dataclass(frozen=True, slots=True)
class ShapeStyle:
    """How shapes are drawn: each value for all of them, or a list of one for each."""

    edge_colors: Any
    line_styles: Any
    line_widths: Any
    face_colors: Any
    alpha: float

    def of(self, index: int, count: int) -> Inked:
        """Return the style of one of so many shapes."""
        edge, face = (colors_of(each, count)[index] for each in (self.edge_colors, self.face_colors))
        return Inked(edge, _one(self.line_styles, index), _width(self.line_widths, index), face, self.alpha)


class Canvas:
    """An image that is drawn on.

    Args:
        image: height x width x 3 (or 1), RGB; it is copied.
    """

    def __init__(self, image: Any) -> None:
        from PIL import Image as PillowImage

        self._picture = PillowImage.fromarray(image_of(image).copy())

    @property
    def image(self) -> Image:
        """What was drawn, as a new array."""
        return np.array(self._picture)

    @property
    def font_size(self) -> int:
        """Height of a text in pixels where none is given: it grows with the image."""
        return max(10, int(math.sqrt(self._picture.width * self._picture.height)) // 90)

    def bboxes(self, bboxes: Any, style: ShapeStyle) -> None:
        """Draw boxes, n x 4: x1, y1, x2, y2 in pixels; an edge lies inside of its box."""
        boxes = np.rint(_rows(bboxes, 4))
        for index, (x1, y1, x2, y2) in enumerate(boxes):
            corners = np.array([[min(x1, x2), min(y1, y2)], [max(x1, x2), max(y1, y2)]])
            self._draw("rectangle", corners, style.of(index, len(boxes)))

    def polygons(self, polygons: Any, style: ShapeStyle) -> None:
        """Draw closed polygons: one, or a list of them, n x 2 or flat."""
        shapes = polygons if isinstance(polygons, list) else [polygons]
        for index, shape in enumerate(shapes):
            points = array_of(shape).astype(float).reshape(-1, 2)
            self._draw("polygon", points, style.of(index, len(shapes)))

    def circles(self, center: Any, radius: Any, style: ShapeStyle) -> None:
        """Draw circles: centers n x 2, radii n or one for all."""
        centers = _rows(center, 2)
        radii = np.broadcast_to(array_of(radius).astype(float).reshape(-1), (len(centers),))
        for index, (middle, reach) in enumerate(zip(centers, radii, strict=True)):
            bounds = np.array([middle - reach, middle + reach])
            self._draw("ellipse", bounds, style.of(index, len(centers)))

    def points(self, positions: Any, colors: Any, marker: str | None, sizes: Any) -> None:
        """Draw filled points: positions n x 2, sizes (radii in pixels) n, one for all, or None for 3."""
        shapes: dict[Any, Shape] = {None: "ellipse", "o": "ellipse", ".": "ellipse", "s": "rectangle"}
        if marker not in shapes:
            raise ConfigError(f"A point is drawn as 'o', '.' or 's', not as {marker!r}.")
        places = _rows(positions, 2)
        radii = np.broadcast_to(np.asarray(3.0 if sizes is None else array_of(sizes), float), (len(places),))
        for place, reach, color in zip(places, radii, colors_of(colors, len(places)), strict=True):
            self._draw(
                shapes[marker], np.array([place - reach, place + reach]), Inked(None, "-", 1, color, 1.0)
            )

    def lines(self, x_datas: Any, y_datas: Any, colors: Any, line_styles: Any, line_widths: Any) -> None:
        """Draw line segments: x and y of both ends, each n x 2."""
        ends = np.stack([_rows(x_datas, 2), _rows(y_datas, 2)], axis=-1)
        style = ShapeStyle(colors, line_styles, line_widths, None, 1.0)
        for index, segment in enumerate(ends):
            ink = style.of(index, len(ends))
            self._stamp(segment, ink.edge, ink.alpha, partial(_paint_line, ink=ink), reach=ink.width)

    def texts(
        self,
        texts: str | list[str],
        positions: Any,
        font_sizes: Any,
        colors: Any,
        vertical_alignments: Any,
        horizontal_alignments: Any,
        font_families: Any,
        bboxes: Any,
        font_properties: Any,
    ) -> None:
        """Write texts at positions, n x 2; ``bboxes`` are dicts of the background: facecolor, alpha, pad."""
        from PIL import ImageDraw

        words = [texts] if isinstance(texts, str) else list(texts)
        for index, (text, position, color) in enumerate(
            zip(words, _rows(positions, 2), colors_of(colors, len(words)), strict=True)
        ):
            size = max(1, int(_one(font_sizes, index) or self.font_size))
            font = _font(_one(font_families, index), _one(font_properties, index), size)
            anchor = _aligned(_HORIZONTAL, horizontal_alignments, index) + _aligned(
                _VERTICAL, vertical_alignments, index
            )
            x, y = position
            draw = ImageDraw.Draw(self._picture)
            box = _one(bboxes, index)
            if box:
                left, top, right, bottom = draw.textbbox((x, y), text, font=font, anchor=anchor)
                pad = float(box.get("pad", 0))
                corners = np.array([[left - pad, top - pad], [right + pad, bottom + pad]])
                face = color_of(box.get("facecolor", "w"))
                self._draw("rectangle", corners, Inked(None, "-", 1, face, float(box.get("alpha", 1.0))))
            draw.text((x, y), text, fill=color or _BLACK, font=font, anchor=anchor)

    def binary_masks(self, binary_masks: Any, colors: Any, alphas: Any) -> None:
        """Blend masks, height x width or n x height x width, each with its color."""
        masks = array_of(binary_masks)
        masks = (masks[None] if masks.ndim == 2 else masks).astype(bool)
        size = (self._picture.height, self._picture.width)
        if masks.ndim != 3 or masks.shape[1:] != size:
            raise ConfigError(f"A mask is as large as the image, {size}, not {masks.shape}.")
        for index, (mask, color) in enumerate(zip(masks, colors_of(colors, len(masks)), strict=True)):
            if color is not None:
                self._paste_mask(mask, color, float(_one(alphas, index)))

    def colored(self, colors: NDArray[np.uint8], where: NDArray[np.bool_], alpha: float) -> None:
        """Blend one color per pixel, height x width x 3, where a mask says so."""
        from PIL import Image as PillowImage

        ink = PillowImage.fromarray(np.where(where, round(255 * alpha), 0).astype(np.uint8))
        self._picture.paste(PillowImage.fromarray(colors), (0, 0), ink)

    def _paste_mask(self, mask: NDArray[np.bool_], color: RGB, alpha: float) -> None:
        from PIL import Image as PillowImage

        self._picture.paste(color, (0, 0), PillowImage.fromarray(mask.astype(np.uint8) * round(255 * alpha)))

    def _draw(self, shape: Shape, points: Points, ink: Inked) -> None:
        self._stamp(points, ink.face, ink.alpha, partial(_paint_face, shape=shape))
        self._stamp(points, ink.edge, ink.alpha, partial(_paint_edge, shape=shape, ink=ink), reach=ink.width)

    def _stamp(self, points: Points, color: RGB | None, alpha: float, paint: Paint, reach: float = 0) -> None:
        """Paint a shape into a mask that is no larger than the shape, and its color through the mask."""
        from PIL import Image as PillowImage
        from PIL import ImageDraw

        if color is None or not len(points) or not np.isfinite(points).all():
            return
        low = np.maximum(np.floor(points.min(axis=0) - reach), 0)
        high = np.minimum(
            np.ceil(points.max(axis=0) + reach) + 1, [self._picture.width, self._picture.height]
        )
        if (high <= low).any():
            return  # outside of the image
        width, height = (int(each) for each in high - low)
        mask = PillowImage.new("L", (width, height))
        paint(ImageDraw.Draw(mask), points - low, round(255 * alpha))
        self._picture.paste(color, (int(low[0]), int(low[1])), mask)


def _rows(values: Any, width: int) -> Points:
    array = array_of(values).astype(float)
    if array.size == 0:
        return np.empty((0, width))
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or array.shape[1] != width:
        raise ConfigError(
            f"Expected rows of {width} numbers to draw, not an array of the shape {array.shape}."
        )
    return np.asarray(array, float)


def _paint_face(draw: Any, at: Points, value: int, *, shape: Shape) -> None:
    getattr(draw, shape)(_pairs(at), fill=value)


def _paint_edge(draw: Any, at: Points, value: int, *, shape: Shape, ink: Inked) -> None:
    if not pattern_of(ink.line_style):
        getattr(draw, shape)(_pairs(at), outline=value, width=ink.width)
        return
    low, high = at[0], at[-1]
    paths = {
        "rectangle": lambda: closed(np.array([low, [high[0], low[1]], high, [low[0], high[1]]])),
        "ellipse": lambda: circle_path(low, high),
        "polygon": lambda: closed(at),
    }
    _paint_line(draw, paths[shape](), value, ink=ink)


def _paint_line(draw: Any, at: Points, value: int, *, ink: Inked) -> None:
    pattern = pattern_of(ink.line_style)
    for stroke in strokes(at, pattern, ink.width) if pattern else [at]:
        draw.line(_pairs(stroke), fill=value, width=ink.width)


def _pairs(points: Points) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in points]


def _font(family: Any, properties: Any, size: int) -> Any:
    """Return the font of a file, or Pillow's own, which stands for all families."""
    from PIL import ImageFont

    file = properties.get_file() if hasattr(properties, "get_file") else properties
    file = file or (
        family if isinstance(family, str) and family.lower().endswith((".ttf", ".otf", ".ttc")) else None
    )
    return ImageFont.load_default(size) if file is None else ImageFont.truetype(str(file), size)


def _width(widths: Any, index: int) -> int:
    return max(1, round(float(_one(widths, index))))


def _one(values: Any, index: int) -> Any:
    return values[index] if isinstance(values, list | tuple | np.ndarray) else values


def _aligned(letters: dict[str, str], alignments: Any, index: int) -> str:
    alignment = _one(alignments, index)
    if alignment not in letters:
        raise ConfigError(f"A text is aligned by {', '.join(letters)}, not by {alignment!r}.")
    return letters[alignment]
