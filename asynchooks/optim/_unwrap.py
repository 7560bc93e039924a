"""The model inside a wrapper for parallel training."""

from __future__ import annotations

from torch import nn

__all__ = ["unwrapped"]


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside a wrapper for parallel training; any other model is returned as it is."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner = model.module
        return inner if isinstance(inner, nn.Module) else model
    return model
