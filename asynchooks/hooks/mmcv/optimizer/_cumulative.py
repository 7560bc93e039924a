"""A step of the optimizer after every few iterations, whose gradients are summed up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from asynchooks.errors import ConfigError
from asynchooks.hooks.mmcv.optimizer._hook import OptimizerHook
from asynchooks.optim import hold_parts, part_like
from asynchooks.registry import MMCV_HOOKS

__all__ = ["GradientCumulativeOptimizerHook"]


@MMCV_HOOKS.register_module()
class GradientCumulativeOptimizerHook(OptimizerHook):
    """Runs backward on every loss, and a step of the optimizer on every ``cumulative_iters``-th.

    Each loss is divided by the number of losses that share its step; the last, shorter group of a run is divided by
    its own length. Gradients that wait for their step when a checkpoint is taken are saved with it, so that a
    resumed run loses none; MMCV loses them.

    Args:
        cumulative_iters: losses per step, at least 1.
        options: those of `OptimizerHook`.
    """

    def __init__(self, cumulative_iters: int = 1, **options: Any) -> None:
        if (
            isinstance(cumulative_iters, bool)
            or not isinstance(cumulative_iters, int)
            or cumulative_iters < 1
        ):
            raise ConfigError(
                f"{type(self).__name__}(cumulative_iters={cumulative_iters!r}): give an int of at least 1."
            )
        super().__init__(**options)
        self.cumulative_iters = cumulative_iters
        self._remainder = 0
        self._initialized = False
        self._parameters: list[Tensor] = []  # those whose gradients wait for their step
        self._saved: list[Tensor | None] = []  # of a resumed checkpoint

    def before_run(self, runner: Any) -> None:
        """Start anew."""
        del runner
        self._initialized = False
        self._parameters = []

    def after_train_iter(self, runner: Any) -> None:  # type: ignore[override]
        """Add the gradients of one loss; step when their group is complete. On the training thread."""
        self._initialize(runner)
        loss = runner.outputs["loss"]
        if self.detect_anomalous_params:
            self.detect_anomalous_parameters(loss, runner)
        self.accumulate(loss / self._factor(runner), runner)
        if self.every_n_iters(runner, self.cumulative_iters) or self.is_last_iter(runner):
            self.step(runner)
            self._parameters = []
        else:
            self._parameters = _trained(runner)

    def accumulate(self, loss: Tensor, runner: Any) -> None:
        """Add the gradients of a loss that was divided by its group's length."""
        del runner
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, runner: Any) -> None:
        """Clip, step the optimizer and clear the gradients."""
        self.clip(runner)
        runner.optimizer.step()
        runner.optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return the gradients that wait for their step."""
        return {"grads": [p.grad for p in self._parameters]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up gradients; the next run puts them back."""
        self._saved = list(state["grads"])

    def _initialize(self, runner: Any) -> None:
        if self._initialized:
            return
        self._initialized = True
        self._put_back(runner)
        self._remainder = 0 if runner.max_iters is None else runner.max_iters % self.cumulative_iters
        if self._remainder:
            runner.logger.info(
                "the last %d iterations share a step: their losses are divided by %d, not by %d",
                self._remainder,
                self._remainder,
                self.cumulative_iters,
            )
        if self.cumulative_iters > 1 and any(isinstance(m, _BatchNorm) for m in runner.model.modules()):
            runner.logger.warning(
                "%s: batch norm layers see each iteration by itself, so the result differs from that of a larger "
                "batch.",
                type(self).__name__,
            )

    def _put_back(self, runner: Any) -> None:
        """Put back gradients that a resumed checkpoint has brought."""
        saved, self._saved = self._saved, []
        if saved:
            hold_parts(runner.model)
            for parameter, grad in zip(_trained(runner), saved, strict=True):
                own = None if grad is None else grad.to(parameter.device, copy=True)
                parameter.grad = None if own is None else part_like(own, parameter)
        elif runner.iter % self.cumulative_iters:
            runner.logger.warning(
                "iteration %d is inside a group of %d: the gradients of its first iterations are not known.",
                runner.iter,
                self.cumulative_iters,
            )

    def _factor(self, runner: Any) -> int:
        in_tail = self._remainder and runner.iter >= runner.max_iters - self._remainder
        return self._remainder if in_tail else self.cumulative_iters


def _trained(runner: Any) -> list[Tensor]:
    return [p for p in runner.model.parameters() if p.requires_grad]
