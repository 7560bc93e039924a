"""Broken lines: where the strokes of a dashed path begin and end. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from asynchooks.errors import ConfigError

__all__ = ["circle_path", "closed", "pattern_of", "strokes"]

Path: TypeAlias = NDArray[np.float64]

# Strokes and gaps in line widths, as matplotlib draws its styles by default.
_PATTERNS: dict[str, tuple[float, ...]] = {
    "-": (),
    "--": (3.7, 1.6),
    ":": (1.0, 1.65),
    "-.": (6.4, 1.6, 1.0, 1.6),
}
_NAMES = {"solid": "-", "dashed": "--", "dotted": ":", "dashdot": "-."}
_CORNERS = 96


def pattern_of(style: str) -> tuple[float, ...]:
    """Return the lengths of strokes and gaps, in line widths; none for a solid line.

    Raises:
        ConfigError: no such style.
    """
    pattern = _PATTERNS.get(_NAMES.get(style, style))
    if pattern is None:
        raise ConfigError(f"A line style is one of {', '.join(_PATTERNS)}, not {style!r}.")
    return pattern


def strokes(path: Path, pattern: tuple[float, ...], width: float) -> Iterator[Path]:
    """Yield the strokes, each 2 x 2, of a path of points n x 2; a stroke ends at a corner and goes on behind it."""
    lengths = cycle([length * width for length in pattern])
    left, is_stroke = next(lengths), True
    for start, end in pairwise(path):
        total = float(np.linalg.norm(end - start))
        done = 0.0
        while total - done > 1e-9:
            step = min(left, total - done)
            if is_stroke:
                yield np.array([start + (end - start) * part / total for part in (done, done + step)])
            done, left = done + step, left - step
            if left <= 1e-9:
                left, is_stroke = next(lengths), not is_stroke


def closed(corners: Path) -> Path:
    """Return a path that ends where it begins."""
    return np.vstack([corners, corners[:1]])


def circle_path(low: NDArray[np.float64], high: NDArray[np.float64]) -> Path:
    """Return the ellipse inside of a box as a closed path."""
    angles = np.linspace(0, 2 * np.pi, _CORNERS + 1)
    unit: Path = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    return np.asarray((low + high) / 2 + (high - low) / 2 * unit)
