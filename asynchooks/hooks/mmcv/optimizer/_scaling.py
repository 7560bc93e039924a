"""The scaler of a 16-bit training: built for the run's device, saved in ``meta["fp16"]`` as MMCV does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from asynchooks.errors import ConfigError
from asynchooks.registry import check_options

__all__ = ["STATIC_SCALE", "Scaling"]

STATIC_SCALE = 512.0


class Scaling:
    """The scaler of one hook.

    Args:
        hook: class name, for messages.
        loss_scale: a number for a static scale, "dynamic", or a dict of GradScaler's arguments.
        dtype: what the step computes in.

    Attributes:
        scaler: torch's scaler; None before the run.
    """

    def __init__(
        self, hook: str, loss_scale: float | str | Mapping[str, Any], dtype: str | torch.dtype
    ) -> None:
        self.scaler: torch.amp.GradScaler | None = None
        self.dtype = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
        if self.dtype not in (torch.float16, torch.bfloat16):
            raise ConfigError(f"{hook}(dtype={dtype!r}): give 'float16' or 'bfloat16'.")
        self._static: float | None = None
        if loss_scale == "dynamic":
            self._options: dict[str, Any] = {}
        elif isinstance(loss_scale, Mapping):
            check_options(torch.amp.GradScaler, loss_scale)
            self._options = dict(loss_scale)
        elif isinstance(loss_scale, int | float) and not isinstance(loss_scale, bool) and loss_scale > 0:
            self._static = float(loss_scale)
            self._options = {"init_scale": self._static}
        else:
            raise ConfigError(
                f"{hook}(loss_scale={loss_scale!r}): give a positive number, 'dynamic', or a dict of GradScaler's "
                f"arguments."
            )

    def start(self, runner: Any) -> torch.amp.GradScaler:
        """Build the scaler, take up a resumed run's, and have the training steps run under autocast."""
        device = _device_type(runner.model)
        self.scaler = torch.amp.GradScaler(**{"device": device, **self._options})
        self.load({"meta": runner.meta})
        for module in runner.model.modules():
            if hasattr(module, "fp16_enabled"):  # a model of MMCV's casts where it is told to
                module.fp16_enabled = True
        runner.step_context = partial(torch.autocast, device, dtype=self.dtype)
        return self.scaler

    def load(self, checkpoint: Mapping[str, Any]) -> None:
        """Take up the scaler's state in a checkpoint, where there is one."""
        saved = ((checkpoint.get("meta") or {}).get("fp16") or {}).get("loss_scaler")
        if saved and self.scaler is not None:
            self.scaler.load_state_dict(dict(saved))

    def update(self, scaler: torch.amp.GradScaler) -> None:
        """Set the next scale."""
        scaler.update(self._static)

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Put the scaler's state into a checkpoint."""
        if self.scaler is not None:
            checkpoint["meta"]["fp16"] = {"loss_scaler": self.scaler.state_dict()}


def _device_type(model: nn.Module) -> str:
    return next((p.device.type for p in model.parameters()), "cpu")
