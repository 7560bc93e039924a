"""Mixed precision with NVIDIA's apex, for configurations that name it; `AmpOptimWrapper` is torch's own."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from asynchooks.errors import ConfigError
from asynchooks.optim._unwrap import unwrapped
from asynchooks.optim._wrapper import OptimWrapper
from asynchooks.registry import OPTIM_WRAPPERS

__all__ = ["ApexOptimWrapper"]

_STATE = "apex_amp"


@OPTIM_WRAPPERS.register_module()
class ApexOptimWrapper(OptimWrapper):
    """Trains with ``apex.amp``, which is set up at the first forward pass.

    Args:
        optimizer: a built torch optimizer.
        opt_level: "O0" to "O3".
        loss_scale: a fixed scale, "dynamic", or None for the level's own.
        enabled, cast_model_type, patch_torch_functions, keep_batchnorm_fp32, master_weights, cast_model_outputs,
            num_losses, verbosity, min_loss_scale, max_loss_scale: of ``apex.amp.initialize``.
        accumulative_counts, clip_grad: see `OptimWrapper`.

    Raises:
        ConfigError: apex is not installed.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        opt_level: str = "O1",
        loss_scale: float | str | None = "dynamic",
        enabled: bool = True,  # noqa: FBT001, FBT002 - MMEngine's signature
        cast_model_type: torch.dtype | None = None,
        patch_torch_functions: bool | None = None,  # noqa: FBT001
        keep_batchnorm_fp32: bool | str | None = None,  # noqa: FBT001
        master_weights: bool | None = None,  # noqa: FBT001
        cast_model_outputs: torch.dtype | None = None,
        num_losses: int = 1,
        verbosity: int = 1,
        min_loss_scale: float | None = None,
        max_loss_scale: float | None = 2.0**24,
        accumulative_counts: int = 1,
        clip_grad: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(optimizer, accumulative_counts, clip_grad)
        self._amp = _apex_amp()
        self._options = {
            "opt_level": opt_level,
            "loss_scale": loss_scale,
            "enabled": enabled,
            "cast_model_type": cast_model_type,
            "patch_torch_functions": patch_torch_functions,
            "keep_batchnorm_fp32": keep_batchnorm_fp32,
            "master_weights": master_weights,
            "cast_model_outputs": cast_model_outputs,
            "num_losses": num_losses,
            "verbosity": verbosity,
            "min_loss_scale": min_loss_scale,
            "max_loss_scale": max_loss_scale,
        }
        self._is_set_up = False
        self._loaded: Any = None  # a state that came before apex was set up

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Run backward on the scaled loss and count it."""
        with self._amp.scale_loss(loss, self.optimizer) as scaled:
            super().backward(scaled, **kwargs)

    def optim_context(self, model: nn.Module) -> AbstractContextManager[None]:
        """Return the context in which the forward pass runs."""
        return self._set_up(model, super().optim_context(model))

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state, and apex's under ``apex_amp``."""
        return {**super().state_dict(), _STATE: self._amp.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned; apex takes its part once it is set up."""
        state = dict(state_dict)
        self._loaded = state.pop(_STATE, None)
        super().load_state_dict(state)
        if self._is_set_up:
            self._load()

    @contextmanager
    def _set_up(self, model: nn.Module, outer: AbstractContextManager[None]) -> Iterator[None]:
        with outer:
            if not self._is_set_up:
                _, self.optimizer = self._amp.initialize(unwrapped(model), self.optimizer, **self._options)
                self._is_set_up = True
                self._load()
            yield

    def _load(self) -> None:
        if self._loaded is not None:
            self._amp.load_state_dict(self._loaded)
            self._loaded = None


def _apex_amp() -> Any:
    try:
        return importlib.import_module("apex.amp")
    except ImportError as error:
        raise ConfigError(
            "ApexOptimWrapper needs NVIDIA's apex, which is not installed here (https://github.com/NVIDIA/apex). "
            "type='AmpOptimWrapper' does the same with torch alone."
        ) from error
