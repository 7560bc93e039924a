"""The validation and test loops: one pass without gradients, its metrics, and the points around them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Literal

import torch

from asynchooks.data import length_of
from asynchooks.errors import ConfigError
from asynchooks.optim import hold_parts, unwrapped
from asynchooks.registry import LOOPS
from asynchooks.runner._data import dataset_of
from asynchooks.runner._evaluation import Evaluation
from asynchooks.runner._in_step import InStep
from asynchooks.runner._steps import device_of, eval_step, has_step, switch_mode, to_device

__all__ = ["EvalLoop", "TeacherStudentValLoop", "TestLoop", "ValLoop"]

_BOTH = ("teacher", "student")


class EvalLoop:
    """What validation and test share.

    Args:
        runner: the run.
        dataloader: loader of batches.
        evaluators: built evaluators; with none, the metrics are the means of the losses.
        fp16: whether the model runs in half precision: torch's autocast, in the device's usual dtype.
    """

    mode: Literal["val", "test"]

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        evaluators: list[Any],
        fp16: bool = False,  # noqa: FBT001, FBT002 - MMEngine's order of arguments
    ) -> None:
        if not isinstance(fp16, bool):
            raise TypeError(f"{type(self).__name__}(fp16={fp16!r}): give True or False.")
        self.runner = runner
        self.dataloader = dataloader
        self.evaluators = evaluators
        self.fp16 = fp16

    def run(self) -> dict[str, Any]:
        """Evaluate the model and return its metrics. Waits for the device once, at the end."""
        runner, mode = self.runner, self.mode
        runner.call_hook(f"before_{mode}")
        runner.call_hook(f"before_{mode}_epoch")
        switch_mode(runner.model, "eval")
        metrics = self._measure()
        runner.note_metrics(mode, metrics)
        runner.call_hook(f"after_{mode}_epoch", metrics=metrics)
        runner.call_hook(f"after_{mode}")
        return metrics

    def _measure(self) -> dict[str, Any]:
        """Pass over the data once, and return the metrics."""
        runner, mode, model = self.runner, self.mode, self.runner.model
        device = device_of(model)
        is_plain = not has_step(model, mode)
        dataset = dataset_of(self.dataloader)
        evaluation = Evaluation(self.evaluators, dataset, with_losses=is_plain or not self.evaluators)
        batches = 0
        for batch_idx, loaded in enumerate(InStep(self.dataloader, model, self._keep_in_step)):
            batch = to_device(loaded, device)
            runner.call_hook(f"before_{mode}_iter", batch_idx=batch_idx, data_batch=batch)
            with torch.no_grad(), torch.autocast(device.type) if self.fp16 else nullcontext():
                outputs = eval_step(model, batch, mode)
                evaluation.add(batch, outputs)
            runner.call_hook(f"after_{mode}_iter", batch_idx=batch_idx, data_batch=batch, outputs=outputs)
            batches += 1
        hold_parts(model)
        return evaluation.finish(length_of(dataset) or batches)

    def _keep_in_step(self, loaded: Any) -> None:
        """Run the model for the other ranks' sake, which still have batches; what comes of it is not counted."""
        model = self.runner.model
        device = device_of(model)
        with torch.no_grad(), torch.autocast(device.type) if self.fp16 else nullcontext():
            eval_step(model, to_device(loaded, device), self.mode)


@LOOPS.register_module()
class ValLoop(EvalLoop):
    """Validates."""

    mode = "val"


@LOOPS.register_module()
class TeacherStudentValLoop(ValLoop):
    """Validates the teacher and then the student of a semi-supervised detector, as MMDetection does.

    The model has ``teacher`` and ``student``, and predicts with the one that ``semi_test_cfg["predict_on"]`` names.
    The metrics of both have its name in front: ``teacher/coco/bbox_mAP``. Unlike MMDetection's, what was named before
    is named again after a failure too.
    """

    def _measure(self) -> dict[str, Any]:
        model: Any = unwrapped(self.runner.model)
        for name in (*_BOTH, "semi_test_cfg"):
            if not hasattr(model, name):
                raise ConfigError(
                    f"TeacherStudentValLoop validates a model with teacher, student and semi_test_cfg; "
                    f"{type(model).__name__} has no {name}."
                )
        chosen = dict(model.semi_test_cfg)
        metrics: dict[str, Any] = {}
        try:
            for name in _BOTH:
                model.semi_test_cfg["predict_on"] = name
                metrics |= {f"{name}/{key}": value for key, value in super()._measure().items()}
        finally:
            model.semi_test_cfg.pop("predict_on", None)
            model.semi_test_cfg.update(chosen)
        return metrics


@LOOPS.register_module()
class TestLoop(EvalLoop):
    """Tests."""

    __test__ = False  # its name is MMEngine's, not pytest's
    mode = "test"
