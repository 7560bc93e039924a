"""Evaluation on all ranks, each on its part of the data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import torch.distributed
from torch.nn.modules.batchnorm import _BatchNorm

from asynchooks.checkpoint import before_step
from asynchooks.distributed import is_distributed
from asynchooks.hooks.mmcv.evaluation._hook import EvalHook
from asynchooks.hooks.mmcv.evaluation._inference import multi_gpu_test
from asynchooks.registry import MMCV_HOOKS

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart

__all__ = ["DistEvalHook"]


@MMCV_HOOKS.register_module()
class DistEvalHook(EvalHook):
    """An `EvalHook` whose results come from all ranks; rank 0 evaluates them and saves.

    Args:
        dataloader: this rank's part of the data set.
        args: further arguments of `EvalHook`, by position.
        broadcast_bn_buffer: whether all ranks take rank 0's running means and variances first.
        tmpdir: handed to ``test_fn``; `multi_gpu_test` needs no folder.
        gpu_collect: handed to ``test_fn``.
        options: those of `EvalHook`, and what is handed to ``evaluate``.
    """

    def __init__(
        self,
        dataloader: Any,
        *args: Any,
        broadcast_bn_buffer: bool = True,
        tmpdir: str | None = None,
        gpu_collect: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(dataloader, *args, **options)
        self.broadcast_bn_buffer = broadcast_bn_buffer
        self.tmpdir = tmpdir
        self.gpu_collect = gpu_collect

    def infer(self, runner: Any) -> Any:
        """Return on rank 0 the results of all ranks, None on the others."""
        tmpdir = self.tmpdir or str(PurePath(runner.work_dir or ".", ".eval_hook"))
        return self.test_fn(runner.model, self.dataloader, tmpdir=tmpdir, gpu_collect=self.gpu_collect)

    def _default_test(self, model: Any, dataloader: Any, **options: Any) -> Any:
        return multi_gpu_test(model, dataloader, **options)

    def _do_evaluate(self, runner: Any, done: Mapping[str, int]) -> BackgroundPart | None:
        before_step()
        distributed = torch.distributed
        if self.broadcast_bn_buffer and is_distributed():
            for module in runner.model.modules():
                statistics = (
                    (module.running_var, module.running_mean) if isinstance(module, _BatchNorm) else ()
                )
                for statistic in statistics:
                    if statistic is not None:
                        distributed.broadcast(statistic, 0)
        return super()._do_evaluate(runner, done)
