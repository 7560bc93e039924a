"""The validation and test loops: one pass without gradients, its metrics, and the points around them."""

from __future__ import annotations

from typing import Any, Literal

import torch

from asynchooks.registry import LOOPS
from asynchooks.runner._data import dataset_of, length_of
from asynchooks.runner._evaluation import Evaluation
from asynchooks.runner._steps import device_of, eval_step, switch_mode, to_device

__all__ = ["EvalLoop", "TestLoop", "ValLoop"]


class EvalLoop:
    """What validation and test share.

    Args:
        runner: the run.
        dataloader: loader of batches.
        evaluators: built evaluators; with none, the metrics are the means of the losses.
    """

    mode: Literal["val", "test"]

    def __init__(self, runner: Any, dataloader: Any, evaluators: list[Any]) -> None:
        self.runner = runner
        self.dataloader = dataloader
        self.evaluators = evaluators

    def run(self) -> dict[str, Any]:
        """Evaluate the model and return its metrics. Waits for the device once, at the end."""
        runner, mode = self.runner, self.mode
        runner.call_hook(f"before_{mode}")
        runner.call_hook(f"before_{mode}_epoch")
        model = runner.model
        switch_mode(model, "eval")
        device = device_of(model)
        is_plain = getattr(model, f"{mode}_step", None) is None
        dataset = dataset_of(self.dataloader)
        evaluation = Evaluation(self.evaluators, dataset, with_losses=is_plain or not self.evaluators)
        batches = 0
        for batch_idx, loaded in enumerate(self.dataloader):
            batch = to_device(loaded, device)
            runner.call_hook(f"before_{mode}_iter", batch_idx=batch_idx, data_batch=batch)
            with torch.no_grad():
                outputs = eval_step(model, batch, mode)
                evaluation.add(batch, outputs)
            runner.call_hook(f"after_{mode}_iter", batch_idx=batch_idx, data_batch=batch, outputs=outputs)
            batches += 1
        metrics = evaluation.finish(length_of(dataset) or batches)
        runner.note_metrics(mode, metrics)
        runner.call_hook(f"after_{mode}_epoch", metrics=metrics)
        runner.call_hook(f"after_{mode}")
        return metrics


@LOOPS.register_module()
class ValLoop(EvalLoop):
    """Validates."""

    mode = "val"


@LOOPS.register_module()
class TestLoop(EvalLoop):
    """Tests."""

    __test__ = False  # its name is MMEngine's, not pytest's
    mode = "test"
