"""The optimizer's step with a scaled loss, for training in 16 bits; torch's autocast and GradScaler do the work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from asynchooks.hooks.mmcv.optimizer._cumulative import GradientCumulativeOptimizerHook
from asynchooks.hooks.mmcv.optimizer._hook import OptimizerHook
from asynchooks.hooks.mmcv.optimizer._scaling import STATIC_SCALE, Scaling
from asynchooks.registry import MMCV_HOOKS

__all__ = ["Fp16OptimizerHook", "GradientCumulativeFp16OptimizerHook"]


@MMCV_HOOKS.register_module()
class Fp16OptimizerHook(OptimizerHook):
    """An `OptimizerHook` that scales the loss, and has the training steps run under autocast.

    The scaler's state is saved with every checkpoint, in ``meta["fp16"]``, and resumed; between checkpoints it is
    not read, so the device is not waited for more than the scaler's own step does. MMCV casts only in functions that
    its decorators mark; here autocast covers the whole step.

    Args:
        grad_clip: as of `OptimizerHook`; the norm is that of the gradients without the scale.
        coalesce: accepted; torch's data-parallel wrapper has its own buckets.
        bucket_size_mb: accepted, as ``coalesce``.
        loss_scale: a number for a static scale, "dynamic", or a dict of `torch.amp.GradScaler`'s arguments.
        distributed: accepted, as ``coalesce``.
        dtype: "float16", or "bfloat16".
        detect_anomalous_params: as of `OptimizerHook`.
    """

    def __init__(
        self,
        grad_clip: Mapping[str, Any] | None = None,
        coalesce: bool = True,  # noqa: FBT001, FBT002 - MMCV's order of arguments
        bucket_size_mb: int = -1,
        loss_scale: float | str | Mapping[str, Any] = STATIC_SCALE,
        distributed: bool = True,  # noqa: FBT001, FBT002
        *,
        dtype: str | torch.dtype = torch.float16,
        detect_anomalous_params: bool = False,
    ) -> None:
        super().__init__(grad_clip, detect_anomalous_params)
        self.coalesce = coalesce
        self.bucket_size_mb = bucket_size_mb
        self.distributed = distributed
        self._scaling = Scaling(type(self).__name__, loss_scale, dtype)

    @property
    def loss_scaler(self) -> torch.amp.GradScaler | None:
        """The scaler; None before the run."""
        return self._scaling.scaler

    def before_run(self, runner: Any) -> None:
        """Build the scaler, and take up a resumed one."""
        self._scaling.start(runner)

    def after_train_iter(self, runner: Any) -> None:  # type: ignore[override]
        """Step, unless a gradient is not finite. On the training thread."""
        scaler = self._scaling.scaler or self._scaling.start(runner)
        loss = runner.outputs["loss"]
        runner.model.zero_grad()
        runner.optimizer.zero_grad()
        if self.detect_anomalous_params:
            self.detect_anomalous_parameters(loss, runner)
        scaler.scale(loss).backward()
        scaler.unscale_(runner.optimizer)
        self.clip(runner)
        scaler.step(runner.optimizer)
        self._scaling.update(scaler)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Take up the scaler's state, where the run is resumed after its beginning."""
        if runner.is_resuming:
            self._scaling.load(checkpoint)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Put the scaler's state into the checkpoint."""
        del runner
        self._scaling.save(checkpoint)


@MMCV_HOOKS.register_module()
class GradientCumulativeFp16OptimizerHook(GradientCumulativeOptimizerHook):
    """A `GradientCumulativeOptimizerHook` with a scaled loss; see `Fp16OptimizerHook`.

    Args:
        cumulative_iters: losses per step, at least 1.
        grad_clip, coalesce, bucket_size_mb, loss_scale, distributed, dtype: as of `Fp16OptimizerHook`.
        options: those of `OptimizerHook`.
    """

    def __init__(
        self,
        cumulative_iters: int = 1,
        grad_clip: Mapping[str, Any] | None = None,
        coalesce: bool = True,  # noqa: FBT001, FBT002 - MMCV's order of arguments
        bucket_size_mb: int = -1,
        loss_scale: float | str | Mapping[str, Any] = STATIC_SCALE,
        distributed: bool = True,  # noqa: FBT001, FBT002
        *,
        dtype: str | torch.dtype = torch.float16,
        **options: Any,
    ) -> None:
        super().__init__(cumulative_iters, grad_clip=grad_clip, **options)
        self.coalesce = coalesce
        self.bucket_size_mb = bucket_size_mb
        self.distributed = distributed
        self._scaling = Scaling(type(self).__name__, loss_scale, dtype)

    @property
    def loss_scaler(self) -> torch.amp.GradScaler | None:
        """The scaler; None before the run."""
        return self._scaling.scaler

    def before_run(self, runner: Any) -> None:
        """Build the scaler, and take up a resumed one and its gradients."""
        super().before_run(runner)
        self._scaling.start(runner)

    def accumulate(self, loss: Tensor, runner: Any) -> None:
        """Add the scaled gradients of a loss."""
        scaler = self._scaling.scaler or self._scaling.start(runner)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, runner: Any) -> None:
        """Clip, step, unless a gradient is not finite, and clear the gradients."""
        scaler = self._scaling.scaler or self._scaling.start(runner)
        scaler.unscale_(runner.optimizer)
        self.clip(runner)
        scaler.step(runner.optimizer)
        self._scaling.update(scaler)
        runner.model.zero_grad()
        runner.optimizer.zero_grad()

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Take up the scaler's state, where the run is resumed after its beginning."""
        if runner.is_resuming:
            self._scaling.load(checkpoint)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Put the scaler's state into the checkpoint."""
        del runner
        self._scaling.save(checkpoint)
