"""The drawing methods of a visualizer: one image at a time, MMEngine's names and arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from asynchooks.errors import ConfigError
from asynchooks.visualization._canvas import Canvas, ShapeStyle
from asynchooks.visualization._image import check_pillow

if TYPE_CHECKING:
    from threading import RLock

    from asynchooks.visualization._backend import Image

__all__ = ["Pen"]


class Pen:
    """Draws on the image that `set_image` chose. Pixels; (0, 0) is the top left corner.

    Colors are letters ("r"), names, "#rrggbb" or three numbers from 0 to 255; line styles "-", "--", ":" and "-.";
    one for all things, or a list. Where several threads draw, each holds the visualizer's lock over its own
    ``set_image`` ... ``get_image``, as ``add_datasample`` does.
    """

    def __init__(self, lock: RLock) -> None:
        self._lock: Any = lock
        self._canvas: Canvas | None = None

    def set_image(self, image: Any) -> None:
        """Begin a drawing on an image: height x width x 3 (or 1), RGB; it is copied."""
        check_pillow(type(self).__name__)
        with self._lock:
            self._canvas = Canvas(image)

    def get_image(self) -> Image:
        """Return the drawing, as a new array."""
        return self._drawing().image

    def draw_bboxes(
        self,
        bboxes: Any,
        edge_colors: Any = "g",
        line_styles: Any = "-",
        line_widths: Any = 2,
        face_colors: Any = "none",
        alpha: float = 0.8,
    ) -> Self:
        """Draw boxes: x1, y1, x2, y2, one or n x 4. The edge lies inside of the box."""
        style = ShapeStyle(edge_colors, line_styles, line_widths, face_colors, alpha)
        with self._lock:
            self._drawing().bboxes(bboxes, style)
        return self

    def draw_polygons(
        self,
        polygons: Any,
        edge_colors: Any = "g",
        line_styles: Any = "-",
        line_widths: Any = 2,
        face_colors: Any = "none",
        alpha: float = 0.8,
    ) -> Self:
        """Draw closed polygons: n x 2 points, or a list of such."""
        style = ShapeStyle(edge_colors, line_styles, line_widths, face_colors, alpha)
        with self._lock:
            self._drawing().polygons(polygons, style)
        return self

    def draw_circles(
        self,
        center: Any,
        radius: Any,
        edge_colors: Any = "g",
        line_styles: Any = "-",
        line_widths: Any = 2,
        face_colors: Any = "none",
        alpha: float = 0.8,
    ) -> Self:
        """Draw circles: centers, one or n x 2, and radii."""
        style = ShapeStyle(edge_colors, line_styles, line_widths, face_colors, alpha)
        with self._lock:
            self._drawing().circles(center, radius, style)
        return self

    def draw_lines(
        self, x_datas: Any, y_datas: Any, colors: Any = "g", line_styles: Any = "-", line_widths: Any = 2
    ) -> Self:
        """Draw line segments: the x of both ends, one or n x 2, and the y of both."""
        with self._lock:
            self._drawing().lines(x_datas, y_datas, colors, line_styles, line_widths)
        return self

    def draw_points(
        self, positions: Any, colors: Any = "g", marker: str | None = None, sizes: Any = None
    ) -> Self:
        """Draw points: one or n x 2, round (None, "o", ".") or square ("s"), with radii in pixels, 3 by default."""
        with self._lock:
            self._drawing().points(positions, colors, marker, sizes)
        return self

    def draw_texts(
        self,
        texts: str | list[str],
        positions: Any,
        font_sizes: Any = None,
        colors: Any = "g",
        vertical_alignments: Any = "top",
        horizontal_alignments: Any = "left",
        font_families: Any = "sans-serif",
        bboxes: Any = None,
        font_properties: Any = None,
    ) -> Self:
        """Write texts at positions, one or n x 2.

        Args:
            texts: one, or a list.
            positions: where their corner named by the alignments stands.
            font_sizes: in pixels; by the image's size where left out.
            colors: of the letters.
            vertical_alignments: "top", "center" or "bottom".
            horizontal_alignments: "left", "center" or "right".
            font_families: a font file (``.ttf``, ``.otf``); any family's name stands for Pillow's own font.
            bboxes: backgrounds, each a dict of ``facecolor``, ``alpha`` and ``pad`` (pixels).
            font_properties: matplotlib's, or a font file; for letters that Pillow's own font has not.
        """
        with self._lock:
            self._drawing().texts(
                texts,
                positions,
                font_sizes,
                colors,
                vertical_alignments,
                horizontal_alignments,
                font_families,
                bboxes,
                font_properties,
            )
        return self

    def draw_binary_masks(self, binary_masks: Any, colors: Any = "g", alphas: Any = 0.8) -> Self:
        """Blend masks with the image: height x width, or n of them."""
        with self._lock:
            self._drawing().binary_masks(binary_masks, colors, alphas)
        return self

    def _drawing(self) -> Canvas:
        if self._canvas is None:
            raise ConfigError(
                f"{type(self).__name__}: there is no image to draw on; call set_image(image) first."
            )
        return self._canvas
