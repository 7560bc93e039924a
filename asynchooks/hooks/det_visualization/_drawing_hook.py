"""What both hooks share: their arguments, and how captured pictures are drawn in the background.

On the training thread, only when a picture is due, predictions are copied to the CPU; images are read, decoded,
drawn, encoded and written in worker threads, one after the other, so that each writer sees them in their order.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import anyio

from asynchooks.checkpoint import store_options
from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, Hook
from asynchooks.hooks.det_visualization._files import Files, joined
from asynchooks.visualization import DataSample, check_pillow, copy_sample

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart, OnError

__all__ = ["DrawingHook", "Picture"]


@dataclass(frozen=True, slots=True)
class Picture:
    """One image to draw on.

    Attributes:
        name: what backends call it.
        sample: what is drawn, with the image's path or URL under ``img_path``.
        step: iteration or number of the image.
        out_file: address that gets the picture in place of the backends, or None.
    """

    name: str
    sample: DataSample
    step: int
    out_file: str | None


class DrawingHook(Hook):
    """Draws predictions on images. Base of the detection and the tracking hook; see there."""

    priority = "NORMAL"
    effects = Effects(reads={"data"}, writes={"logs.visualizer"})
    changes_state = False
    on_error: OnError = "warn"
    max_in_flight = 4  # each holds a batch's predictions

    def __init__(
        self,
        *,
        draw: bool,
        interval: tuple[str, int],
        score_thr: float,
        show: bool,
        wait_time: float,
        test_out_dir: str | os.PathLike[str] | None,
        backend_args: Mapping[str, Any] | None,
    ) -> None:
        kind, (name, every) = type(self).__name__, interval
        if not isinstance(draw, bool):
            raise TypeError(f"{kind}(draw={draw!r}): give True or False.")
        if isinstance(every, bool) or not isinstance(every, int):
            raise TypeError(f"{kind}({name}={every!r}): give a number of images or iterations.")
        if every < 1:
            raise ConfigError(f"{kind}({name}={every}): give a number >= 1.")
        for argument, value in (("score_thr", score_thr), ("wait_time", wait_time)):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{kind}({argument}={value!r}): give a number.")
        if show:
            raise ConfigError(
                f"{kind}(show=True): images are drawn in the background, which opens no window. Leave show out; the "
                f"visualizer's backends receive the images, or the folder test_out_dir does."
            )
        if test_out_dir is not None and not isinstance(test_out_dir, str | os.PathLike):
            raise TypeError(f"{kind}(test_out_dir={test_out_dir!r}): give a folder.")
        if draw:
            check_pillow(f"{kind}(draw=True)")
        self.draw = draw
        self.score_thr = score_thr
        self.test_out_dir = None if test_out_dir is None else os.fspath(test_out_dir)
        self._files = Files(store_options(kind, backend_args))

    def _visualizer(self, runner: Any) -> Any:
        """Return who draws; None where this process does not."""
        visualizer = getattr(runner, "visualizer", None)
        if visualizer is None:
            raise ConfigError(
                f"{type(self).__name__}(draw=True) draws with runner.visualizer, and this run has none: give it "
                f"visualizer=dict(type='Visualizer', vis_backends=[...])."
            )
        return visualizer if getattr(visualizer, "is_active", True) else None

    def _picture(self, name: str, sample: Any, step: int, out_file: str | None = None) -> Picture:
        return Picture(name, copy_sample(sample, score_thr=self.score_thr), step, out_file)

    def _out_file(self, runner: Any, *names: str) -> str | None:
        """Return the address in ``test_out_dir``, below the folder of the run's logs; None where there is none."""
        if self.test_out_dir is None:
            return None
        return joined(runner.work_dir, runner.timestamp, self.test_out_dir, *names)

    def _drawing(self, visualizer: Any, pictures: list[Picture]) -> BackgroundPart | None:
        if not pictures:
            return None

        async def draw() -> None:
            failures: list[Exception] = []
            for picture in pictures:
                try:
                    await anyio.to_thread.run_sync(self._draw, visualizer, picture)
                except Exception as error:  # noqa: BLE001 - raised below, when every picture was tried
                    failures.append(error)
            if len(failures) > 1:
                raise ExceptionGroup("several pictures failed", failures)
            if failures:
                raise failures[0]

        return draw

    def _draw(self, visualizer: Any, picture: Picture) -> None:
        path = path_of(picture.sample)
        if path is None:
            raise ValueError(
                f"{type(self).__name__}: a data sample has no img_path, so its image is not known."
            )
        options: dict[str, Any] = {"step": picture.step, "pred_score_thr": self.score_thr}
        image = self._files.read(path)
        if picture.out_file is None:
            visualizer.add_datasample(picture.name, image, data_sample=picture.sample, **options)
            return
        with self._files.writing(picture.out_file) as local:
            visualizer.add_datasample(
                picture.name, image, data_sample=picture.sample, out_file=local, **options
            )


def path_of(sample: DataSample) -> str | None:
    """Return where the image of a sample is: the first one, where it has several views."""
    path: Any = sample.img_path
    first: str | None = path[0] if isinstance(path, list | tuple) and path else path
    return first


def file_name(sample: Any) -> str:
    """Return the name of a sample's image file; empty where it has none."""
    return PurePosixPath(path_of(sample) or "").name
