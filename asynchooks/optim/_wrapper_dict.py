"""Several optimizer wrappers under their names, for models that step several optimizers themselves."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from asynchooks.errors import ConfigError, did_you_mean
from asynchooks.optim._wrapper import OptimWrapper
from asynchooks.registry import OPTIM_WRAPPERS

__all__ = ["OptimWrapperDict"]


@OPTIM_WRAPPERS.register_module()
class OptimWrapperDict:
    """Optimizer wrappers by name: ``OptimWrapperDict(generator=..., discriminator=...)``.

    Which loss belongs to which optimizer only the model knows, so its ``train_step(data, optim_wrapper)`` calls
    ``optim_wrapper["generator"].update_params(loss)``; methods that would need to know say so.

    Args:
        optim_wrappers: built wrappers.
    """

    def __init__(self, **optim_wrappers: OptimWrapper) -> None:
        for name, wrapper in optim_wrappers.items():
            if not callable(getattr(wrapper, "update_params", None)):
                raise ConfigError(f"OptimWrapperDict holds built OptimWrappers, but {name}={wrapper!r}.")
        self.optim_wrappers = dict(optim_wrappers)

    @property
    def optimizer(self) -> dict[str, torch.optim.Optimizer]:
        """The torch optimizers by name."""
        return {name: wrapper.optimizer for name, wrapper in self.items()}

    @property
    def param_groups(self) -> dict[str, list[dict[str, Any]]]:
        """Each wrapper's parameter groups."""
        return {name: wrapper.param_groups for name, wrapper in self.items()}

    @property
    def is_accumulating(self) -> bool:
        """Whether gradients of earlier losses wait for their step, in any of them."""
        return any(wrapper.is_accumulating for wrapper in self.values())

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        """Do nothing: how many losses an iteration has for each optimizer, only the model knows."""

    def update_params(
        self,
        loss: Tensor,
        step_kwargs: Mapping[str, Any] | None = None,
        zero_kwargs: Mapping[str, Any] | None = None,
    ) -> NoReturn:
        """Raise `ConfigError`: choose one wrapper."""
        self._choose("update_params(loss)")

    def backward(self, loss: Tensor, **kwargs: Any) -> NoReturn:
        """Raise `ConfigError`: choose one wrapper."""
        self._choose("backward(loss)")

    def step(self, **kwargs: Any) -> NoReturn:
        """Raise `ConfigError`: choose one wrapper."""
        self._choose("step()")

    def optim_context(self, model: nn.Module) -> NoReturn:
        """Raise `ConfigError`: choose one wrapper."""
        self._choose("optim_context(model)")

    def zero_grad(self, **kwargs: Any) -> None:
        """Clear the gradients of all optimizers."""
        for wrapper in self.values():
            wrapper.zero_grad(**kwargs)

    def take_grad_norm(self) -> Tensor | None:
        """Return the norm of the last wrapper that has clipped since the last call; None where none has."""
        norms = [wrapper.take_grad_norm() for wrapper in self.values()]
        return next((norm for norm in reversed(norms) if norm is not None), None)

    def get_lr(self) -> dict[str, list[float]]:
        """Return ``{"name.lr": [one per parameter group]}``, and ``"name.base_lr"`` where a wrapper has it."""
        return {f"{name}.{key}": value for name, each in self.items() for key, value in each.get_lr().items()}

    def get_momentum(self) -> dict[str, list[float]]:
        """Return ``{"name.momentum": [one per parameter group]}``."""
        return {
            f"{name}.{key}": value
            for name, each in self.items()
            for key, value in each.get_momentum().items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the wrappers' states by name."""
        return {name: wrapper.state_dict() for name, wrapper in self.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned.

        Raises:
            ConfigError: it holds other names.
        """
        if state_dict.keys() != self.optim_wrappers.keys():
            raise ConfigError(
                f"The state is of the optimizers {', '.join(map(str, state_dict))}; here are {', '.join(self)}."
            )
        for name, wrapper in self.items():
            wrapper.load_state_dict(state_dict[name])

    def accumulated_grads(self) -> dict[str, Any]:
        """Return each wrapper's gradients that wait for their step, and of how many losses they are."""
        return {
            name: {
                "counts": wrapper.inner_count % wrapper.accumulative_counts,
                "grads": wrapper.accumulated_grads(),
            }
            for name, wrapper in self.items()
        }

    def load_accumulated_grads(self, grads: Mapping[str, Any]) -> None:
        """Put back what `accumulated_grads` returned."""
        for name, state in grads.items():
            self[name].load_accumulated_grads(state["grads"], counts=state["counts"])

    def items(self) -> ItemsView[str, OptimWrapper]:
        """Names and wrappers."""
        return self.optim_wrappers.items()

    def keys(self) -> KeysView[str]:
        """Names."""
        return self.optim_wrappers.keys()

    def values(self) -> ValuesView[OptimWrapper]:
        """Wrappers."""
        return self.optim_wrappers.values()

    def __getitem__(self, name: str) -> OptimWrapper:
        if name not in self.optim_wrappers:
            raise ConfigError(
                f"No optimizer is called {name!r}.{did_you_mean(str(name), self)} There are {', '.join(self)}."
            )
        return self.optim_wrappers[name]

    def __contains__(self, name: object) -> bool:
        return name in self.optim_wrappers

    def __iter__(self) -> Iterator[str]:
        return iter(self.optim_wrappers)

    def __len__(self) -> int:
        return len(self.optim_wrappers)

    def __repr__(self) -> str:
        return f"OptimWrapperDict({', '.join(f'{name}={wrapper!r}' for name, wrapper in self.items())})"

    def _choose(self, call: str) -> NoReturn:
        first = next(iter(self), "name")
        raise ConfigError(
            f"There are several optimizers, {', '.join(self)}: call {call} on one of them, such as "
            f"optim_wrapper[{first!r}].{call}, in the model's own train_step(data, optim_wrapper)."
        )
