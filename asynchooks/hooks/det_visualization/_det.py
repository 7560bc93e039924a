"""Draws detections: of the first image of some validation batches, and of every test image."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from asynchooks.execution import background
from asynchooks.hooks.det_visualization._drawing_hook import DrawingHook, Picture, file_name
from asynchooks.registry import HOOKS
from asynchooks.visualization import samples_of

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart

__all__ = ["DetVisualizationHook"]


@HOOKS.register_module()
class DetVisualizationHook(DrawingHook):
    """Draws boxes, masks and segmentation maps on the images that they were predicted for.

    In a validation, the first image of a batch, where ``iter + batch_idx`` is a multiple of ``interval``, as
    ``val_img``; in a test every image, as ``test_img``, or into ``test_out_dir``. Nothing is read, decoded or copied
    for other batches. Ground truth stands on the left where the samples have it.

    Args:
        draw: whether anything is drawn.
        interval: validation batches between two pictures.
        score_thr: predictions with no higher score are left out.
        show: refused: no window is opened from the background.
        wait_time: MMDetection's, of a window.
        test_out_dir: folder for the pictures of a test, below ``work_dir/timestamp`` where it is relative; the
            backends receive none then. Files of one name are told apart by a number.
        backend_args: fsspec's options, for images and folders at URLs.

    Raises:
        ConfigError: a wrong value, or Pillow is missing.
        TypeError: a value of the wrong type.
    """

    def __init__(
        self,
        draw: bool = False,  # noqa: FBT001, FBT002 - MMDetection's order of arguments
        interval: int = 50,
        score_thr: float = 0.3,
        show: bool = False,  # noqa: FBT001, FBT002
        wait_time: float = 0.0,
        test_out_dir: str | os.PathLike[str] | None = None,
        backend_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            draw=draw,
            interval=("interval", interval),
            score_thr=score_thr,
            show=show,
            wait_time=wait_time,
            test_out_dir=test_out_dir,
            backend_args=backend_args,
        )
        self.interval = interval
        self._tested = 0
        self._names: Counter[str] = Counter()

    @background
    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> BackgroundPart | None:
        """Draw the first image of the batch, where it is due."""
        if not self.draw:
            return None
        step = runner.iter + batch_idx
        if step % self.interval:
            return None
        visualizer, samples = self._visualizer(runner), samples_of(outputs)[:1]
        if visualizer is None:
            return None
        return self._drawing(visualizer, [self._picture("val_img", sample, step) for sample in samples])

    def before_test(self, runner: Any) -> None:
        """Begin anew to tell files of one name apart."""
        self._names.clear()

    @background
    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> BackgroundPart | None:
        """Draw every image of the batch."""
        visualizer = self._visualizer(runner) if self.draw else None
        if visualizer is None:
            return None
        return self._drawing(visualizer, [self._tested_picture(runner, each) for each in samples_of(outputs)])

    def _tested_picture(self, runner: Any, sample: Any) -> Picture:
        self._tested += 1
        picture = self._picture("test_img", sample, self._tested)
        name = PurePosixPath(file_name(picture.sample) or f"{self._tested}.png")
        self._names[str(name)] += 1
        count = self._names[str(name)]
        unique = str(name) if count == 1 else f"{name.stem}_{count}{name.suffix}"
        return Picture(picture.name, picture.sample, picture.step, self._out_file(runner, unique))
