"""Keeps the message hub informed: where the run stands, its learning rates, its losses and metrics.

Runs first, so that every other hook reads this iteration's numbers. Losses are handed over as they are: a tensor
stays a tensor, and the device is not waited for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asynchooks.execution import Effects, Hook
from asynchooks.registry import HOOKS

__all__ = ["RuntimeInfoHook"]

_NUMBERS = (int, float)


@HOOKS.register_module()
class RuntimeInfoHook(Hook):
    """Writes the run's position, learning rates, outputs and metrics to the message hub.

    Infos: ``cfg``, ``seed``, ``experiment_name``, ``asynchooks_version``, ``loop_stage``, ``epoch``, ``iter``,
    ``max_epochs``, ``max_iters``, ``dataset_meta``. Scalars: ``train/lr`` (or one per optimizer),
    ``train/{output}``, ``val/{metric}``, ``test/{metric}``; a metric that is no scalar becomes an info.
    """

    priority = "VERY_HIGH"
    effects = Effects()
    changes_state = False

    def __init__(self) -> None:
        self._outer_stage: str | None = None
        self._keys: dict[str, str] = {}

    def before_run(self, runner: Any) -> None:
        """Note what describes the run."""
        from asynchooks._version import __version__

        cfg = getattr(runner, "cfg", None)
        runner.message_hub.update_info_dict(
            {
                "cfg": getattr(cfg, "pretty_text", None) or str(cfg),
                "seed": getattr(runner, "seed", None),
                "experiment_name": getattr(runner, "experiment_name", None),
                "asynchooks_version": __version__,
            }
        )
        self._outer_stage = None

    def before_train(self, runner: Any) -> None:
        """Note the limits and the data set's description."""
        runner.message_hub.update_info_dict(
            {
                "loop_stage": "train",
                "epoch": runner.epoch,
                "iter": runner.iter,
                "max_epochs": runner.max_epochs,
                "max_iters": runner.max_iters,
            }
        )
        dataset: Any = getattr(getattr(runner, "train_dataloader", None), "dataset", None)
        if hasattr(dataset, "metainfo"):
            runner.message_hub.update_info("dataset_meta", dataset.metainfo)

    def after_train(self, runner: Any) -> None:
        """Leave the stage."""
        runner.message_hub.pop_info("loop_stage")

    def before_train_epoch(self, runner: Any) -> None:
        """Note the epoch."""
        runner.message_hub.update_info("epoch", runner.epoch)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Note the iteration and the learning rates with which it runs."""
        del batch_idx, data_batch
        hub = runner.message_hub
        hub.update_info("iter", runner.iter)
        keys = self._keys
        for name, values in runner.optim_wrapper.get_lr().items():
            key = keys.get(name)
            if key is None:
                key = keys[name] = f"train/{name}"
            hub.update_scalar(key, values[0])

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Hand the outputs over, without reading them."""
        del batch_idx, data_batch
        if outputs is None:
            return
        hub = runner.message_hub
        keys = self._keys
        is_dict = type(outputs) is dict or isinstance(outputs, Mapping)
        for name, value in outputs.items() if is_dict else (("loss", outputs),):
            if _is_scalar(value):
                key = keys.get(name)
                if key is None:
                    key = keys[name] = f"train/{name}"
                hub.update_scalar(key, value)

    def before_val(self, runner: Any) -> None:
        """Enter the stage, remembering the one around it."""
        self._outer_stage = runner.message_hub.get_info("loop_stage")
        runner.message_hub.update_info("loop_stage", "val")

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, Any] | None = None) -> None:
        """Note the metrics."""
        _note_metrics(runner.message_hub, "val", metrics)

    def after_val(self, runner: Any) -> None:
        """Return to the stage around the validation."""
        if self._outer_stage is None:
            runner.message_hub.pop_info("loop_stage")
        else:
            runner.message_hub.update_info("loop_stage", self._outer_stage)
        self._outer_stage = None

    def before_test(self, runner: Any) -> None:
        """Enter the stage."""
        runner.message_hub.update_info("loop_stage", "test")

    def after_test_epoch(self, runner: Any, metrics: Mapping[str, Any] | None = None) -> None:
        """Note the metrics."""
        _note_metrics(runner.message_hub, "test", metrics)

    def after_test(self, runner: Any) -> None:
        """Leave the stage."""
        runner.message_hub.pop_info("loop_stage")


def _note_metrics(hub: Any, mode: str, metrics: Mapping[str, Any] | None) -> None:
    for name, value in (metrics or {}).items():
        if _is_scalar(value):
            hub.update_scalar(f"{mode}/{name}", value)
        else:
            hub.update_info(f"{mode}/{name}", value)


def _is_scalar(value: Any) -> bool:
    if isinstance(value, _NUMBERS):
        return True
    try:
        return bool(value.numel() == 1)  # a tensor
    except AttributeError:
        return getattr(value, "ndim", None) == 0  # a number or array of numpy
