"""Lets a teacher be the moving average of its student (Tarvainen and Valpola, 2017, arXiv 1703.01780)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, Hook
from asynchooks.optim import unwrapped
from asynchooks.optim._checks import checked_count, checked_fraction
from asynchooks.registry import HOOKS

__all__ = ["MeanTeacherHook"]


@HOOKS.register_module()
class MeanTeacherHook(Hook):
    """``teacher = (1 - momentum) * teacher + momentum * student`` after training steps.

    The model has ``teacher`` and ``student``, of the same structure. A training that starts, and is not resumed,
    first gives the teacher the student's weights.

    Args:
        momentum: weight of the student, between 0 and 1.
        interval: iterations from one update to the next.
        skip_buffer: whether buffers are left out; those that are no floating-point numbers always are.
    """

    priority = "NORMAL"
    effects = Effects()

    def __init__(
        self,
        momentum: float = 0.001,
        interval: int = 1,
        skip_buffer: bool = True,  # noqa: FBT001, FBT002 - MMDetection's signature
    ) -> None:
        if not isinstance(skip_buffer, bool):
            raise ConfigError(f"MeanTeacherHook: skip_buffer is True or False, not {skip_buffer!r}.")
        self.momentum = checked_fraction("MeanTeacherHook", "momentum", momentum)
        self.interval = checked_count("MeanTeacherHook", "interval", interval, least=1)
        self.skip_buffers = skip_buffer

    def before_train(self, runner: Any) -> None:
        """Let the teacher start as the student.

        Raises:
            ConfigError: the model has no teacher and student, or they differ in structure.
        """
        pairs = list(self._pairs(runner))
        if runner.iter == 0:
            with torch.no_grad():
                for teacher, student in pairs:
                    teacher.copy_(student)

    @torch.no_grad()
    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Move the teacher towards the student, where an update is due."""
        del batch_idx, data_batch, outputs
        if not self.every_n_train_iters(runner, self.interval):
            return
        teachers, students = map(list, zip(*self._pairs(runner), strict=True))
        torch._foreach_mul_(teachers, 1 - self.momentum)
        torch._foreach_add_(teachers, students, alpha=self.momentum)

    def _pairs(self, runner: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Pair the teacher's tensors with the student's, without their gradients."""
        model = unwrapped(runner.model)
        teacher, student = (_part(model, name) for name in ("teacher", "student"))
        for name, value in teacher.items():
            if not self.skip_buffers or isinstance(value, nn.Parameter):
                other = student.get(name)
                if other is None or other.shape != value.shape:
                    raise ConfigError(
                        f"MeanTeacherHook: the teacher's {name} has the shape {tuple(value.shape)}, the student's is "
                        f"{'missing' if other is None else tuple(other.shape)}; they must have one structure."
                    )
                if value.is_floating_point():
                    yield value.detach(), other.detach()


def _part(model: nn.Module, name: str) -> dict[str, Tensor]:
    part = getattr(model, name, None)
    if not isinstance(part, nn.Module):
        raise ConfigError(
            f"MeanTeacherHook averages model.student into model.teacher, but {type(model).__name__} has no {name}."
        )
    return {**dict(part.named_parameters()), **dict(part.named_buffers())}
