"""Draws tracks: some frames of each video."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from asynchooks.execution import background
from asynchooks.hooks.det_visualization._drawing_hook import DrawingHook, Picture, file_name, path_of
from asynchooks.registry import HOOKS
from asynchooks.visualization import samples_of

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart

__all__ = ["TrackVisualizationHook"]


@HOOKS.register_module()
class TrackVisualizationHook(DrawingHook):
    """Draws the predicted instances of every ``frame_interval``-th frame, each track in a color of its own.

    A batch is one video, a sample with a length whose items are its frames, or, where the loader's sampler is a
    ``TrackImgSampler``, one frame of it. Pictures are called ``val_img`` and ``test_img``; with ``test_out_dir`` a
    test writes files instead, in a folder for each video. Nothing is read, decoded or copied for other frames.

    Args:
        draw: whether anything is drawn.
        frame_interval: frames between two pictures.
        score_thr: predictions with no higher score are left out.
        show: refused: no window is opened from the background.
        wait_time: MMDetection's, of a window.
        test_out_dir: folder for the pictures of a test, below ``work_dir/timestamp`` where it is relative.
        backend_args: fsspec's options, for images and folders at URLs.

    Raises:
        ConfigError: a wrong value, or Pillow is missing.
        TypeError: a value of the wrong type.
    """

    def __init__(
        self,
        draw: bool = False,  # noqa: FBT001, FBT002 - MMDetection's order of arguments
        frame_interval: int = 30,
        score_thr: float = 0.3,
        show: bool = False,  # noqa: FBT001, FBT002
        wait_time: float = 0.0,
        test_out_dir: str | os.PathLike[str] | None = None,
        backend_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            draw=draw,
            interval=("frame_interval", frame_interval),
            score_thr=score_thr,
            show=show,
            wait_time=wait_time,
            test_out_dir=test_out_dir,
            backend_args=backend_args,
        )
        self.frame_interval = frame_interval
        self._frames = 0

    @background
    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> BackgroundPart | None:
        """Draw the frames that are due; steps count on from the training's iterations."""
        return self._draw_due(runner, "val", batch_idx, outputs, runner.iter)

    @background
    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> BackgroundPart | None:
        """Draw the frames that are due; steps count frames."""
        return self._draw_due(runner, "test", batch_idx, outputs, 0)

    def _draw_due(
        self, runner: Any, mode: str, batch_idx: int, outputs: Any, start: int
    ) -> BackgroundPart | None:
        visualizer = self._visualizer(runner) if self.draw else None
        if visualizer is None:
            return None
        samples = samples_of(outputs)
        if len(samples) != 1:
            raise ValueError(
                f"TrackVisualizationHook: a batch of a {mode} is one video or frame, not {len(samples)}: "
                f"set batch_size=1."
            )
        due = self._due_frames(runner, mode, batch_idx, samples[0], start)
        return self._drawing(visualizer, [self._frame(runner, mode, *each) for each in due])

    def _due_frames(
        self, runner: Any, mode: str, batch_idx: int, video: Any, start: int
    ) -> list[tuple[Any, int]]:
        """Return the frames to draw, with their steps."""
        sampler = getattr(getattr(runner, f"{mode}_dataloader", None), "sampler", None)
        if type(sampler).__name__ == "TrackImgSampler":
            is_due = (batch_idx + 1) % self.frame_interval == 0
            return [(video[0], start + batch_idx)] if is_due else []
        first, length = self._frames, len(video)
        self._frames += length
        return [(video[index], start + first + index) for index in range(0, length, self.frame_interval)]

    def _frame(self, runner: Any, mode: str, sample: Any, step: int) -> Picture:
        picture = self._picture(f"{mode}_img", sample, step)
        if mode == "val":
            return picture
        folders = PurePosixPath(path_of(picture.sample) or "").parts
        video = folders[-3] if len(folders) > 2 else "video"  # MOT's layout: video/img1/000001.jpg
        out_file = self._out_file(runner, video, file_name(picture.sample) or f"{step}.png")
        return Picture(picture.name, picture.sample, step, out_file)
