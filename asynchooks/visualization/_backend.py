"""What a visualization backend is: where scalars, images, graphs and the configuration of a run go.

Decides the contract that every backend and its callers keep; knows no library.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Image", "VisBackend"]

Image = NDArray[np.uint8]


class VisBackend:
    """Base of backends. Every method but the constructor blocks and belongs into a background part.

    The constructor checks its arguments and stores them; it opens no file and no connection and imports no client
    library (but says at once when that is not installed). What a backend needs is opened by the first call, in the
    background, and after `close` by the next one. A visualizer calls one method at a time, in order; two threads are
    never inside one backend.

    Args:
        save_dir: local folder for what the backend writes; None where it writes none, or the visualizer's is taken.

    Attributes:
        needs_save_dir: whether it can do nothing without a folder; a visualizer then asks for one at construction.
    """

    needs_save_dir: bool = False

    def __init__(self, save_dir: str | os.PathLike[str] | None = None) -> None:
        self.save_dir = None if save_dir is None else os.fspath(save_dir)

    @property
    def experiment(self) -> Any:
        """The client library's own object (a run, a writer), opened now if it is not open."""
        return self

    def add_config(self, config: Mapping[str, Any] | str) -> None:
        """Record the configuration of the run."""

    def add_graph(self, model: Any, data_batch: Any) -> None:
        """Record the structure of a model."""

    def add_image(self, name: str, image: Image, step: int = 0) -> None:
        """Record an image: uint8, height x width x 3, RGB."""

    def add_scalar(self, name: str, value: float, step: int = 0) -> None:
        """Record one number."""

    def add_scalars(
        self, scalars: Mapping[str, Any], step: int = 0, file_path: str | os.PathLike[str] | None = None
    ) -> None:
        """Record several numbers of one step.

        Args:
            scalars: numbers by name; what is no number is left out.
            step: iteration or epoch.
            file_path: a further file for backends that write lines of JSON; others ignore it.
        """

    def close(self) -> None:
        """Flush and release everything. May be called twice; a later call of another method opens again."""
