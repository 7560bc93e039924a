"""One training, validation or test step, for models that define it and for plain modules that return a loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from asynchooks.checkpoint import before_step
from asynchooks.errors import ConfigError
from asynchooks.optim import unwrapped

__all__ = [
    "check_exchange",
    "device_of",
    "eval_step",
    "has_step",
    "losses_of",
    "switch_mode",
    "to_device",
    "train_step",
]


def train_step(model: nn.Module, batch: Any, optim_wrapper: Any) -> Any:
    """Run one training step and return its outputs; losses are detached tensors, not read.

    A model's own ``train_step(data, optim_wrapper)`` is called where it has one. A plain module is called with
    the batch and returns its loss: a scalar tensor, a dict with ``loss``, or one with several ``loss_*``.
    """
    own = _own(model, "train_step")
    if own is not None:
        outputs = own(batch, optim_wrapper)
        check_exchange(model)
        return outputs
    with optim_wrapper.optim_context(model):
        outputs = model(batch)
        total = losses_of(outputs).get("loss")
    if total is None:
        raise ConfigError(
            f"{type(model).__name__} has no train_step, so its forward(batch) must return a loss: a scalar tensor, "
            f"a dict with 'loss', or one with several 'loss_*'. It returned {_described(outputs)}."
        )
    optim_wrapper.update_params(total)
    return {"loss": total.detach(), **_scalars(outputs)}


def switch_mode(model: nn.Module, mode: Literal["train", "eval"]) -> None:
    """Put a model into a mode. One that does something of its own then (merge weights, say) waits for copies."""
    if any(
        type(m).train is not nn.Module.train or type(m).eval is not nn.Module.eval for m in model.modules()
    ):
        before_step()
    if mode == "train":
        model.train()
    else:
        model.eval()


def eval_step(model: nn.Module, batch: Any, mode: str) -> Any:
    """Run one validation or test step: the model's own ``val_step`` / ``test_step``, or ``forward(batch)``."""
    own = _own(model, f"{mode}_step")
    return unwrapped(model)(batch) if own is None else own(batch)


def check_exchange(model: nn.Module) -> None:
    """Raise where ranks train apart: the model's own step has gone past the forward that exchanges gradients.

    Raises:
        ConfigError: it has.
    """
    switch = unwrapped(model).__dict__.get("set_requires_gradient_sync")
    if getattr(switch, "is_passed_by", False):
        raise ConfigError(
            f"{type(unwrapped(model)).__name__}.train_step has not called the model itself, so no gradients were "
            f"exchanged and the ranks would train apart. Compute the loss in forward and call self(...), or name the "
            f"submodules that train_step calls: strategy=dict(type='DDP', modules=['generator', 'discriminator'])."
        )


def has_step(model: nn.Module, mode: str) -> bool:
    """Whether a model, or the one inside a wrapper, defines a step of this mode itself."""
    return _own(model, f"{mode}_step") is not None


def _own(model: nn.Module, name: str) -> Any:
    """Return a model's own method; one of the model inside of DDP takes part with its forward."""
    return getattr(model, name, None) or getattr(unwrapped(model), name, None)


def losses_of(outputs: Any) -> dict[str, Tensor]:
    """Return the losses in a module's outputs, their total under "loss"; empty where there are none.

    A dict's own "loss" is the total; otherwise the sum of everything with "loss" in its name is.
    """
    if isinstance(outputs, Tensor):
        return {"loss": outputs.reshape(())} if outputs.numel() == 1 and outputs.is_floating_point() else {}
    if not isinstance(outputs, Mapping):
        return {}
    losses = {name: _one_loss(name, value) for name, value in outputs.items() if "loss" in str(name)}
    if losses and "loss" not in losses:
        losses["loss"] = sum(
            losses.values(), start=torch.zeros((), device=next(iter(losses.values())).device)
        )
    return losses


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter or buffer; the CPU where it has none."""
    for tensors in (model.parameters(), model.buffers()):
        for tensor in tensors:
            return tensor.device
    return torch.device("cpu")


def to_device(batch: Any, device: torch.device) -> Any:
    """Return a batch whose tensors, in dicts, lists and tuples at any depth, are on a device."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    move = getattr(batch, "to", None)
    if callable(move):  # an object that knows how to move itself
        return move(device)
    if isinstance(batch, Mapping):
        moved = {key: to_device(value, device) for key, value in batch.items()}
        return moved if type(batch) is dict else _rebuilt(batch, moved)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def _rebuilt(batch: Mapping[Any, Any], moved: dict[Any, Any]) -> Any:
    try:
        return type(batch)(moved)  # type: ignore[call-arg]
    except TypeError:
        return moved


def _one_loss(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.mean()
    if isinstance(value, Sequence) and value and all(isinstance(item, Tensor) for item in value):
        return torch.stack([item.mean() for item in value]).sum()
    raise ConfigError(f"The loss {name!r} is a tensor or a list of tensors, not {_described(value)}.")


def _scalars(outputs: Any) -> dict[str, Any]:
    if not isinstance(outputs, Mapping):
        return {}
    scalars: dict[str, Any] = {}
    for name, value in outputs.items():
        if isinstance(value, Tensor) and value.numel() == 1:
            scalars[name] = value.detach()
        elif isinstance(value, int | float):
            scalars[name] = value
        elif "loss" in str(name):
            scalars[name] = _one_loss(name, value).detach()
    return scalars


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and dtype {value.dtype}"
    if isinstance(value, Mapping):
        return f"a dict with {list(value)}"
    return repr(value) if value is None else f"a {type(value).__name__}"
