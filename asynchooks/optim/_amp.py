"""Mixed precision with torch's own parts: the forward pass casts, and the loss is scaled against underflow.

Decides nothing that `torch.autocast` and `torch.amp.GradScaler` do not: here they meet accumulation and clipping.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from asynchooks.errors import ConfigError
from asynchooks.optim._wrapper import OptimWrapper
from asynchooks.registry import OPTIM_WRAPPERS, check_options

__all__ = ["AmpOptimWrapper"]

_SCALER = "loss_scaler"
_DTYPES = ("float16", "bfloat16", "float32", "float64")
_SHORT = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "fp64": "float64"}


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(OptimWrapper):
    """Trains in mixed precision on the device of the parameters.

    Unlike MMEngine's it trains on a CPU too, where torch's autocast does.

    Args:
        optimizer: a built torch optimizer.
        loss_scale: "dynamic", a fixed scale, or arguments of `torch.amp.GradScaler`.
        dtype: what is cast to, as a torch dtype or its name, such as "bfloat16"; None takes torch's default of
            the device (float16 on CUDA, bfloat16 on the CPU).
        use_fsdp: changes nothing: torch's scaler knows FSDP2's models, and ranks skip a step together.
        accumulative_counts: see `OptimWrapper`.
        clip_grad: see `OptimWrapper`; gradients are unscaled before they are clipped.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        loss_scale: str | float | Mapping[str, Any] = "dynamic",
        dtype: str | torch.dtype | None = None,
        use_fsdp: bool = False,  # noqa: FBT001, FBT002 - MMEngine's signature
        accumulative_counts: int = 1,
        clip_grad: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(optimizer, accumulative_counts, clip_grad)
        del use_fsdp
        self._scaler_options, self._fixed_scale = _scaler_options(loss_scale)
        self.cast_dtype = _checked_dtype(dtype)
        self._scaler: torch.amp.GradScaler | None = None

    @property
    def loss_scaler(self) -> torch.amp.GradScaler:
        """Torch's scaler, made for the device of the parameters when it is first needed."""
        if self._scaler is None:
            self._scaler = torch.amp.GradScaler(self._device_type, **self._scaler_options)
        return self._scaler

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Run backward on the scaled loss and count it."""
        super().backward(self.loss_scaler.scale(loss), **kwargs)

    def step(self, **kwargs: Any) -> None:
        """Unscale, clip if configured, and step unless a gradient overflowed; then adapt the scale.

        Torch's scaler waits for the device here.
        """
        if self.clip_grad is not None:
            self.loss_scaler.unscale_(self.optimizer)
            self._clip()
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update(self._fixed_scale)

    def optim_context(self, model: nn.Module) -> AbstractContextManager[None]:
        """Return the context in which the forward pass runs: it casts."""
        return self._casting(super().optim_context(model))

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state, and the scaler's under ``loss_scaler``."""
        return {**super().state_dict(), _SCALER: self.loss_scaler.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned; a state without a scaler's leaves the scale as it is."""
        state = dict(state_dict)
        scaler = state.pop(_SCALER, None)
        if scaler:
            self.loss_scaler.load_state_dict(scaler)
        super().load_state_dict(state)

    @contextmanager
    def _casting(self, outer: AbstractContextManager[None]) -> Iterator[None]:
        with outer, torch.autocast(self._device_type, dtype=self.cast_dtype):
            yield

    @property
    def _device_type(self) -> str:
        return next((p.device.type for p in self._parameters()), "cpu")


def _scaler_options(loss_scale: Any) -> tuple[dict[str, Any], float | None]:
    """Return the scaler's arguments, and the scale that it keeps."""
    if loss_scale == "dynamic":
        return {}, None
    if isinstance(loss_scale, int | float) and not isinstance(loss_scale, bool) and loss_scale > 0:
        return {"init_scale": float(loss_scale)}, float(loss_scale)
    if isinstance(loss_scale, Mapping):
        options = dict(loss_scale)
        check_options(torch.amp.GradScaler, {"device": "cpu", **options})
        return options, None
    raise ConfigError(
        f"AmpOptimWrapper: loss_scale is 'dynamic', a number above 0, or a dict of GradScaler's arguments such as "
        f"dict(init_scale=512.0), not {loss_scale!r}."
    )


def _checked_dtype(dtype: Any) -> torch.dtype | None:
    found = getattr(torch, _SHORT.get(dtype, dtype)) if _is_name(dtype) else dtype
    if found is None or isinstance(found, torch.dtype):
        return found
    raise ConfigError(
        f"AmpOptimWrapper: dtype is one of {', '.join(_DTYPES)}, a torch.dtype or None, not {dtype!r}."
    )


def _is_name(dtype: Any) -> bool:
    return isinstance(dtype, str) and (dtype in _DTYPES or dtype in _SHORT)
