"""The optimizer wrapper: one way to say "backward and maybe step", with accumulation and clipping.

Decides when gradients become a step. Knows nothing of mixed precision, loops or logs; the newest gradient
norm stays a tensor, since reading it here would stop the device once per step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from asynchooks.errors import ConfigError
from asynchooks.optim._group_value import momentum_in
from asynchooks.optim._kept_grads import kept_gradients
from asynchooks.optim._parallel import clip_grad_norm, exchange_context
from asynchooks.registry import OPTIM_WRAPPERS, check_options

__all__ = ["OptimWrapper"]

logger = logging.getLogger(__name__)

_BASE = "base_param_settings"
_CLIPPERS: dict[str, Callable[..., Any]] = {
    "norm": clip_grad_norm,
    "value": nn.utils.clip_grad_value_,
}


@OPTIM_WRAPPERS.register_module()
class OptimWrapper:
    """Runs backward on every loss, and a step of the optimizer on every ``accumulative_counts``-th.

    Args:
        optimizer: a built torch optimizer.
        accumulative_counts: losses per step, at least 1. Each loss is divided by it; the last, shorter group
            of a run is divided by its own length.
        clip_grad: arguments of `torch.nn.utils.clip_grad_norm_`, such as ``dict(max_norm=35)``; with
            ``type="value"``, of `clip_grad_value_`. None clips nothing.

    Attributes:
        base_param_settings: where the optimizer has several parameter groups, one more group with the
            optimizer's defaults and no parameter of the model. Schedulers change it with the others, so that
            ``base_lr`` tells the learning rate without the groups' own factors. None for a single group.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        accumulative_counts: int = 1,
        clip_grad: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise ConfigError(f"OptimWrapper wraps a torch.optim.Optimizer, not {optimizer!r}.")
        if (
            isinstance(accumulative_counts, bool)
            or not isinstance(accumulative_counts, int)
            or accumulative_counts < 1
        ):
            raise ConfigError(f"accumulative_counts is an int of at least 1, not {accumulative_counts!r}.")
        self.optimizer = optimizer
        self.accumulative_counts = accumulative_counts
        self.clip_grad = _clip_options(clip_grad)
        self._grad_norm: Tensor | None = None
        self._counts = 0
        self._max_counts = -1
        self._remainder = 0
        self._exchanges = True  # whether the forward that was begun last was told to exchange its gradients
        self.base_param_settings: dict[str, Any] | None = None
        if len(optimizer.param_groups) > 1:
            self.base_param_settings = {"params": torch.zeros(1), **optimizer.defaults}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimizer's parameter groups, and the base settings after them where there are several."""
        groups = self.optimizer.param_groups
        return groups if self.base_param_settings is None else [*groups, self.base_param_settings]

    @property
    def inner_count(self) -> int:
        """Losses so far."""
        return self._counts

    @property
    def defaults(self) -> dict[str, Any]:
        """The optimizer's defaults."""
        return self.optimizer.defaults

    @property
    def is_accumulating(self) -> bool:
        """Whether gradients of earlier losses wait for their step."""
        return self._counts % self.accumulative_counts != 0 and self._counts != self._max_counts

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        """Say where the run starts and ends, in iterations; ``max_counts=-1`` where the end is unknown."""
        self._counts = init_counts
        self._max_counts = max_counts
        self._remainder = max_counts % self.accumulative_counts if max_counts > 0 else 0
        if init_counts % self.accumulative_counts and not self._holds_gradients(model):
            logger.warning(
                "the run starts at loss %d of a group of %d, without the gradients of those before it",
                init_counts % self.accumulative_counts + 1,
                self.accumulative_counts,
            )
        if self.accumulative_counts > 1 and any(isinstance(m, _BatchNorm) for m in model.modules()):
            logger.warning(
                "gradients of %d losses make one step, but the model's BatchNorm layers see each batch alone",
                self.accumulative_counts,
            )

    def update_params(
        self,
        loss: Tensor,
        step_kwargs: Mapping[str, Any] | None = None,
        zero_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Add the gradients of one loss; step and clear them when their group is complete."""
        self.backward(self.scale_loss(loss))
        if self.should_update():
            if not self._exchanges:
                raise ConfigError(
                    "The optimizer steps after a loss whose gradients the ranks have not exchanged: the model's "
                    "train_step runs several losses in one optim_context. Write `with "
                    "optim_wrapper.optim_context(self):` around the forward of each loss."
                )
            self.step(**(step_kwargs or {}))
            self.zero_grad(**(zero_kwargs or {}))

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Return the loss divided by the number of losses that share its step."""
        if self.accumulative_counts == 1:
            return loss
        in_tail = self._remainder and self._counts >= self._max_counts - self._remainder
        return loss / (self._remainder if in_tail else self.accumulative_counts)

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Run backward and count the loss."""
        loss.backward(**kwargs)  # type: ignore[no-untyped-call]
        self._counts += 1

    def step(self, **kwargs: Any) -> None:
        """Clip, if configured, and step the optimizer."""
        if self.clip_grad is not None:
            self._clip()
        self.optimizer.step(**kwargs)

    def zero_grad(self, **kwargs: Any) -> None:
        """Clear the gradients."""
        self.optimizer.zero_grad(**kwargs)

    def should_update(self) -> bool:
        """Whether the losses since the last step are a complete group, or the run ends here."""
        return not self.is_accumulating

    def should_sync(self) -> bool:
        """Whether the step follows the next loss, so that ranks must exchange its gradients."""
        counts = self._counts + 1
        return counts % self.accumulative_counts == 0 or counts == self._max_counts

    def optim_context(self, model: nn.Module) -> AbstractContextManager[None]:
        """Return the context in which the forward pass runs; a subclass may cast in it.

        A model that is trained on several ranks exchanges its gradients only where the step follows (``no_sync``,
        as of `DistributedDataParallel`, or ``set_requires_gradient_sync``, as of FSDP2). Backward may run outside of
        the context.
        """
        exchanges = self.should_sync()
        self._exchanges = exchanges or not hasattr(model, "set_requires_gradient_sync")
        return exchange_context(model, exchanges=exchanges)

    def take_grad_norm(self) -> Tensor | None:
        """Return the gradients' norm before clipping, once per step that clipped by norm; None otherwise.

        A 0-d tensor on the gradients' device: reading it is left to whoever may wait for the device.
        """
        norm, self._grad_norm = self._grad_norm, None
        return norm

    def get_lr(self) -> dict[str, list[float]]:
        """Return ``{"lr": [one per parameter group]}``, and before it ``"base_lr"`` where there are several."""
        rates = {"lr": [group["lr"] for group in self.optimizer.param_groups]}
        return rates if self.base_param_settings is None else {"base_lr": [self._base("lr")], **rates}

    def get_momentum(self) -> dict[str, list[float]]:
        """Return ``{"momentum": [one per parameter group]}``: momentum, else the first beta, else 0."""
        return {"momentum": [momentum_in(group) for group in self.optimizer.param_groups]}

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state, and the base settings where there are some."""
        state = self.optimizer.state_dict()
        return state if self.base_param_settings is None else {**state, _BASE: dict(self.base_param_settings)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned, or a bare optimizer's state."""
        state = dict(state_dict)
        base = state.pop(_BASE, None)
        if base is not None and self.base_param_settings is not None:
            self.base_param_settings.update(base)
        self.optimizer.load_state_dict(state)

    def accumulated_grads(self) -> list[Tensor | None]:
        """Return the gradients that wait for their step, in the order of the parameter groups."""
        return [p.grad for p in self._parameters()]

    def load_accumulated_grads(self, grads: list[Tensor | None], *, counts: int | None = None) -> None:
        """Put back what `accumulated_grads` returned, and the losses so far where nobody else says them."""
        for parameter, grad in zip(self._parameters(), grads, strict=True):
            parameter.grad = None if grad is None else grad.to(parameter.device, copy=True)
        self._counts = self._counts if counts is None else counts

    def __repr__(self) -> str:
        return f"{type(self).__name__}(accumulative_counts={self.accumulative_counts}, optimizer={self.optimizer!r})"

    def _base(self, name: str) -> Any:
        return (self.base_param_settings or {}).get(name)

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _holds_gradients(self, model: nn.Module) -> bool:
        gradients = [*self.accumulated_grads(), *kept_gradients(model)]
        return any(gradient is not None for gradient in gradients)

    def _clip(self) -> None:
        kind, options = self.clip_grad or ("", {})
        parameters = [p for p in self._parameters() if p.requires_grad and p.grad is not None]
        if not parameters:
            return
        norm = _CLIPPERS[kind](parameters, **options)
        self._grad_norm = norm.detach() if isinstance(norm, Tensor) else None


def _clip_options(clip_grad: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]] | None:
    if clip_grad is None:
        return None
    if not isinstance(clip_grad, Mapping) or not clip_grad:
        raise ConfigError(f"clip_grad is a dict such as dict(max_norm=35, norm_type=2), not {clip_grad!r}.")
    options = dict(clip_grad)
    kind = options.pop("type", "norm")
    if kind not in _CLIPPERS:
        raise ConfigError(f"clip_grad clips by type='norm' or type='value', not {kind!r}.")
    signature = nn.utils.clip_grad_norm_ if kind == "norm" else _CLIPPERS[kind]
    check_options(signature, {"parameters": (), **options})
    return kind, options
