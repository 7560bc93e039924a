"""Shows what a test sees and says: the model's structure, and its inputs with what was predicted for them.

On the training thread, only when a batch is due, inputs and predictions are copied to the CPU; they become images
again, are drawn and written in worker threads.
"""

from __future__ import annotations

import logging
from itertools import zip_longest
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np

from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, Hook, background
from asynchooks.registry import HOOKS
from asynchooks.visualization import (
    DataSample,
    check_pillow,
    copy_sample,
    input_image,
    inputs_of,
    samples_of,
    skeleton,
)

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart, OnError

__all__ = ["NaiveVisualizationHook"]

logger = logging.getLogger(__name__)


@HOOKS.register_module()
class NaiveVisualizationHook(Hook):
    """Records the model's structure before a training, and the images of every ``interval``-th test batch.

    An image is the model's input with its normalization, padding and size undone as the data sample says
    (``img_norm_cfg``, ``img_shape``, ``ori_shape``), so that predictions in the original image's pixels fit. It is
    called as its file is, or ``test_img``; its step is its number in the tests of this run. Batches are
    ``dict(inputs=..., data_samples=...)``, lists of dicts of one image each, or pairs of images and labels; outputs
    are data samples, or scores of classes (batch x classes).

    Args:
        interval: test batches between two that are shown.
        draw_gt: whether the ground truth is drawn.
        draw_pred: whether predictions are.

    Raises:
        ConfigError: a wrong value, or Pillow is missing.
        TypeError: a value of the wrong type.
    """

    priority = "NORMAL"
    effects = Effects(writes={"logs.visualizer"})
    changes_state = False
    on_error: OnError = "warn"
    max_in_flight = 4  # each holds a batch

    def __init__(
        self,
        interval: int = 1,
        draw_gt: bool = True,  # noqa: FBT001, FBT002 - MMEngine's order of arguments
        draw_pred: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        if isinstance(interval, bool) or not isinstance(interval, int):
            raise TypeError(f"NaiveVisualizationHook(interval={interval!r}): give a number of batches.")
        if interval < 1:
            raise ConfigError(f"NaiveVisualizationHook(interval={interval}): give a number of batches >= 1.")
        for name, value in (("draw_gt", draw_gt), ("draw_pred", draw_pred)):
            if not isinstance(value, bool):
                raise TypeError(f"NaiveVisualizationHook({name}={value!r}): give True or False.")
        check_pillow("NaiveVisualizationHook")
        self.interval = interval
        self.draw_gt = draw_gt
        self.draw_pred = draw_pred
        self._shown = 0

    @background
    def before_train(self, runner: Any) -> BackgroundPart | None:
        """Record the model's structure, copied without its numbers."""
        visualizer = _visualizer(runner)
        if visualizer is None:
            return None
        try:
            model = skeleton(runner.model)
        except (TypeError, RuntimeError, AttributeError) as error:
            logger.warning("the model's structure is not shown: it cannot be copied: %s", error)
            return None

        async def add_graph() -> None:
            await anyio.to_thread.run_sync(visualizer.add_graph, model, None)

        return add_graph

    @background
    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> BackgroundPart | None:
        """Show the batch, where it is due."""
        if (batch_idx + 1) % self.interval:
            return None
        visualizer = _visualizer(runner)
        if visualizer is None:
            return None
        inputs = inputs_of(data_batch)
        predictions = _predictions(outputs, len(inputs))
        captured = [
            (np.array(_on_cpu(image)), _merged(known, predicted))
            for (image, known), predicted in zip_longest(inputs, predictions)
        ]
        first, self._shown = self._shown + 1, self._shown + len(captured)

        async def show() -> None:
            for number, (array, sample) in enumerate(captured, first):
                await anyio.to_thread.run_sync(self._show, visualizer, array, sample, number)

        return show

    def _show(self, visualizer: Any, array: Any, sample: DataSample, number: int) -> None:
        name = PurePosixPath(str(sample.img_path or "test_img")).name
        image = input_image(array, sample)
        visualizer.add_datasample(name, image, sample, self.draw_gt, self.draw_pred, step=number)


def _visualizer(runner: Any) -> Any:
    visualizer = getattr(runner, "visualizer", None)
    if visualizer is None:
        raise ConfigError(
            "NaiveVisualizationHook shows images on runner.visualizer, and this run has none: give it "
            "visualizer=dict(type='Visualizer', vis_backends=[...])."
        )
    return visualizer if getattr(visualizer, "is_active", True) else None


def _predictions(outputs: Any, count: int) -> list[Any]:
    """Return one prediction per image; none where the outputs are not per image (a loss, say)."""
    found = list(outputs) if getattr(outputs, "ndim", 0) == 2 else samples_of(outputs)
    return found if len(found) == count else [None] * count


def _merged(known: Any, predicted: Any) -> DataSample:
    """Return what describes the image and its truth, with the prediction."""
    sample = copy_sample({"gt_label": known} if _is_label(known) else known)
    if getattr(predicted, "ndim", 0) == 1:  # scores of classes
        return DataSample(sample, pred_label=np.argmax(_on_cpu(predicted)))
    if not _is_label(predicted):
        sample.update(
            {k: v for k, v in copy_sample(predicted).items() if k.startswith("pred") or k not in sample}
        )
    return sample


def _is_label(value: Any) -> bool:
    return isinstance(value, int | float) or getattr(value, "ndim", None) in (0, 1)


def _on_cpu(value: Any) -> Any:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
