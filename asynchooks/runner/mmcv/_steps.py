"""One training or validation step in MMCV's manner: outputs are a dict, and stepping the optimizer is a hook's."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from asynchooks.errors import ConfigError
from asynchooks.runner._steps import check_exchange, losses_of

__all__ = ["train_outputs", "val_outputs"]


def train_outputs(model: nn.Module, batch: Any, optimizer: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Run one training step and return its outputs; ``loss`` still has its graph.

    A model's own ``train_step(data, optimizer, **options)`` is called where it has one; it returns a dict with
    ``loss``, ``log_vars`` and ``num_samples``. A plain module is called with the batch and returns its loss.

    Raises:
        TypeError: ``train_step`` returned no dict.
        ConfigError: a plain module returned no loss, or ranks would train apart.
    """
    own = getattr(model, "train_step", None)
    if own is not None:
        outputs = _checked(own(batch, optimizer, **options), model, "train_step")
        check_exchange(model)
        return outputs
    outputs = model(batch)
    losses = losses_of(outputs)
    if "loss" not in losses:
        raise ConfigError(
            f"{type(model).__name__} has no train_step, so its forward(batch) must return a loss: a scalar tensor, "
            f"a dict with 'loss', or one with several 'loss_*'."
        )
    return _step_outputs(losses, batch)


@torch.no_grad()
def val_outputs(model: nn.Module, batch: Any, optimizer: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Run one validation step and return its outputs.

    A model's own ``val_step(data, optimizer, **options)``, or ``val_step(data)``, is called where it has one; a
    plain module is called with the batch.
    """
    own = getattr(model, "val_step", None)
    if own is not None:
        arguments = (batch, optimizer) if _takes_two(own) else (batch,)
        return _checked(own(*arguments, **options), model, "val_step")
    return _step_outputs(losses_of(model(batch)), batch)


def _step_outputs(losses: Mapping[str, Tensor], batch: Any) -> dict[str, Any]:
    log_vars = {name: loss.detach() for name, loss in losses.items()}
    loss = {"loss": losses["loss"]} if "loss" in losses else {}
    return {**loss, "log_vars": log_vars, "num_samples": _batch_size(batch)}


def _checked(outputs: Any, model: nn.Module, step: str) -> dict[str, Any]:
    if not isinstance(outputs, dict):
        raise TypeError(
            f"{type(model).__name__}.{step} returns a dict with 'loss', 'log_vars' and 'num_samples', not "
            f"{outputs!r}."
        )
    return outputs


def _takes_two(method: Any) -> bool:
    try:
        inspect.signature(method).bind(None, None)
    except (TypeError, ValueError):
        return False
    return True


def _batch_size(batch: Any) -> int:
    """Return the first tensor's first dimension; 1 where there is none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 1
    items = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    return next((_batch_size(item) for item in items), 1)
