"""Backward and a step of the optimizer after every iteration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, RunnerHook
from asynchooks.hooks.mmcv.optimizer._graph import parameters_outside
from asynchooks.optim import clip_grad_norm
from asynchooks.registry import MMCV_HOOKS, check_options

__all__ = ["OptimizerHook"]


@MMCV_HOOKS.register_module()
class OptimizerHook(RunnerHook):
    """Clears the gradients, runs backward on ``runner.outputs["loss"]``, clips, and steps the optimizer.

    The gradients' norm before clipping goes to the log buffer as ``grad_norm``; it stays on its device until a log
    line is written.

    Args:
        grad_clip: arguments of `torch.nn.utils.clip_grad_norm_`, such as ``dict(max_norm=35, norm_type=2)``; None
            clips nothing.
        detect_anomalous_params: whether each trained parameter that has no part in the loss is logged as an error,
            at every iteration; for debugging, since it walks the whole graph.

    Raises:
        UnknownOptionError, ConfigError: ``grad_clip`` is wrong.
    """

    priority = "ABOVE_NORMAL"
    effects = Effects()

    def __init__(
        self,
        grad_clip: Mapping[str, Any] | None = None,
        detect_anomalous_params: bool = False,  # noqa: FBT001, FBT002 - MMCV's order of arguments
    ) -> None:
        if grad_clip is not None:
            if not isinstance(grad_clip, Mapping):
                raise ConfigError(
                    f"{type(self).__name__}(grad_clip={grad_clip!r}): give a dict such as "
                    f"dict(max_norm=35, norm_type=2), or None."
                )
            check_options(nn.utils.clip_grad_norm_, {"parameters": (), **grad_clip})
        self.grad_clip = grad_clip
        self.detect_anomalous_params = detect_anomalous_params

    def after_train_iter(self, runner: Any) -> None:  # type: ignore[override]
        """Step. On the training thread."""
        loss = runner.outputs["loss"]
        runner.optimizer.zero_grad()
        if self.detect_anomalous_params:
            self.detect_anomalous_parameters(loss, runner)
        loss.backward()
        self.clip(runner)
        runner.optimizer.step()

    def clip_grads(self, params: Any) -> Tensor | None:
        """Clip the gradients of those parameters that have one; return their norm before, or None."""
        with_grad = [p for p in params if p.requires_grad and p.grad is not None]
        return clip_grad_norm(with_grad, **(self.grad_clip or {})) if with_grad else None

    def clip(self, runner: Any) -> None:
        """Clip the model's gradients, where that is asked for, and note their norm without reading it."""
        norm = None if self.grad_clip is None else self.clip_grads(runner.model.parameters())
        if norm is not None:
            runner.log_buffer.update({"grad_norm": norm.detach()}, runner.outputs.get("num_samples", 1))

    def detect_anomalous_parameters(self, loss: Tensor, runner: Any) -> None:
        """Log the trained parameters that have no part in a loss."""
        for name, parameter in parameters_outside(loss, runner.model):
            runner.logger.error("%s with shape %s is not in the computational graph", name, parameter.size())
