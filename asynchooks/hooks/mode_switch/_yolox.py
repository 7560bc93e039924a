"""The last epochs of a YOLOX training: no strong augmentation, one loss more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from asynchooks.data import Compose
from asynchooks.errors import ConfigError
from asynchooks.hooks.mode_switch._switching import Switching
from asynchooks.registry import HOOKS

__all__ = ["YOLOXModeSwitchHook"]


@HOOKS.register_module()
class YOLOXModeSwitchHook(Switching):
    """Turns strong augmentation off and the additional loss of the box head on, from epoch ``max - num_last``.

    As in MMDetection, the first epoch after the switch is the one that ends as number ``max_epochs -
    num_last_epochs``, counted from 1. The head is ``model.bbox_head``, or ``model.detector.bbox_head``; its
    ``use_l1`` becomes True, or with MMYOLO's head ``use_bbox_aux``.

    Args:
        num_last_epochs: how many epochs from the end.
        skip_type_keys: transforms that the data set is told to skip (``update_skip_type_keys``).
        new_train_pipeline: MMYOLO's form: transforms that replace the data set's ``pipeline`` instead; dicts for
            the registry TRANSFORMS, or callables.

    Raises:
        ConfigError, UnknownNameError, UnknownOptionError: a wrong value; a pipeline is built at construction.
    """

    def __init__(
        self,
        num_last_epochs: int = 15,
        skip_type_keys: Sequence[str] = ("Mosaic", "RandomAffine", "MixUp"),
        new_train_pipeline: Sequence[Any] | None = None,
    ) -> None:
        if isinstance(num_last_epochs, bool) or not isinstance(num_last_epochs, int) or num_last_epochs < 0:
            raise ConfigError(
                f"YOLOXModeSwitchHook(num_last_epochs={num_last_epochs!r}): give an int >= 0, of epochs."
            )
        if isinstance(skip_type_keys, str) or not all(isinstance(key, str) for key in skip_type_keys):
            raise ConfigError(
                f"YOLOXModeSwitchHook(skip_type_keys={skip_type_keys!r}): give a list of names of transforms."
            )
        self.num_last_epochs = num_last_epochs
        self.skip_type_keys = skip_type_keys
        self.new_train_pipeline = new_train_pipeline
        self._pipeline = None if new_train_pipeline is None else Compose(new_train_pipeline)

    def _is_time(self, runner: Any) -> bool:
        return bool(runner.epoch + 1 >= runner.max_epochs - self.num_last_epochs)

    def _check(self, runner: Any) -> None:
        self._dataset_with(runner, self._switched_part)
        _box_head(runner.model)
        if runner.max_epochs is None:
            raise ConfigError("YOLOXModeSwitchHook: the run has no max_epochs, so it has no last epochs.")

    def _switch(self, runner: Any) -> None:
        dataset = self._dataset_with(runner, self._switched_part)
        if self._pipeline is None:
            dataset.update_skip_type_keys(self.skip_type_keys)
            runner.logger.info("YOLOXModeSwitchHook: no %s from now on.", ", ".join(self.skip_type_keys))
        else:
            dataset.pipeline = self._pipeline
            runner.logger.info("YOLOXModeSwitchHook: the data go through %r from now on.", self._pipeline)
        head = _box_head(runner.model)
        switch = "use_l1" if hasattr(head, "use_l1") or not hasattr(head, "use_bbox_aux") else "use_bbox_aux"
        setattr(head, switch, True)
        runner.logger.info("YOLOXModeSwitchHook: the box head's %s is on from now on.", switch)

    @property
    def _switched_part(self) -> str:
        return "update_skip_type_keys" if self._pipeline is None else "pipeline"


def _box_head(model: Any) -> Any:
    is_wrapped = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
    inner = model.module if is_wrapped else model
    detector = getattr(inner, "detector", inner)
    if not hasattr(detector, "bbox_head"):
        raise ConfigError(
            f"YOLOXModeSwitchHook: {type(detector).__name__} has no bbox_head, whose additional loss is to be "
            f"switched on."
        )
    return detector.bbox_head
