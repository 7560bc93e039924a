"""An optimizer's state by the names of its parameters, and by their numbers: what each is made of the other.

The form by names is torch's own, flattened (`torch.distributed.checkpoint.state_dict` with
``flatten_optimizer_state_dict``): ``state.{name}.{entry}`` and ``param_groups.{name}.{option}``, so that other groups
of the same parameters, on other ranks, can take it up. It is built here without the step that torch runs to have a
state. The form by numbers is what ``Optimizer.state_dict`` returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from asynchooks.errors import ConfigError
from asynchooks.optim._shards import part_like
from asynchooks.optim._unwrap import unwrapped

__all__ = ["extra_state", "fitted_to", "is_named", "named_state", "numbered_state"]

_STATE, _GROUPS = "state.", "param_groups."
_PLAIN = ("state", "param_groups")


def named_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an optimizer's state by the names of its parameters: live tensors, parts of sharded ones.

    Raises:
        ConfigError: it has a parameter that is not the model's.
    """
    names = _names(model, optimizer)
    named: dict[str, Any] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            for entry, value in optimizer.state.get(parameter, {}).items():
                named[f"{_STATE}{name}.{entry}"] = value
            for option, value in group.items():
                if option != "params":
                    named[f"{_GROUPS}{name}.{option}"] = value
    return named


def is_named(state: Mapping[str, Any]) -> bool:
    """Whether a state is by names."""
    return bool(state) and all(str(key).startswith((_STATE, _GROUPS)) for key in state)


def numbered_state(
    named: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Return what `Optimizer.load_state_dict` takes for the state by names of the same parameters.

    Options of a group are those of its first parameter that has some.

    Raises:
        KeyError: the state knows nothing of a parameter.
    """
    names = _names(model, optimizer)
    by_name: dict[str, dict[str, Any]] = {}
    options: dict[str, dict[str, Any]] = {}
    known = sorted(set(names.values()), key=len, reverse=True)
    for key, value in named.items():
        prefix, target = (_STATE, by_name) if key.startswith(_STATE) else (_GROUPS, options)
        rest = key.removeprefix(prefix)
        name, _, entry = rest.rpartition(".")
        if name not in options and name not in by_name and name not in known:
            name = next((each for each in known if rest.startswith(f"{each}.")), name)
            entry = rest.removeprefix(f"{name}.")
        target.setdefault(name, {})[entry] = value
    state: dict[int, Any] = {}
    groups: list[dict[str, Any]] = []
    number = 0
    for group in optimizer.param_groups:
        members = [names[id(parameter)] for parameter in group["params"]]
        missing = [name for name in members if name not in options and name not in by_name]
        if missing:
            raise KeyError(f"it knows nothing of {', '.join(missing[:5])}")
        own = next((options[name] for name in members if name in options), {})
        groups.append({**own, "params": list(range(number, number + len(members)))})
        for name in members:
            if name in by_name:
                state[number] = by_name[name]
            number += 1
    return {"state": state, "param_groups": groups}


def fitted_to(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return a state by numbers whose tensors are spread over the ranks as the optimizer's parameters are.

    A collective where parts meet a whole parameter.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    entries = dict(state.get("state", {}))
    for number, parameter in enumerate(parameters):
        if number in entries:
            entries[number] = {key: _fitted(value, parameter) for key, value in entries[number].items()}
    return {**state, "state": entries}


def extra_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a wrapper has added to its optimizer's state: base settings, the scale of losses."""
    return {key: value for key, value in state.items() if key not in _PLAIN}


def _fitted(value: Any, parameter: Tensor) -> Any:
    if not isinstance(value, Tensor):
        return value
    if isinstance(value, DTensor) and not isinstance(parameter, DTensor):
        return value.full_tensor()
    return part_like(value, parameter) if value.shape == parameter.shape else value


def _names(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[int, str]:
    names = {id(parameter): name for name, parameter in unwrapped(model).named_parameters()}
    parameters: Sequence[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
    strangers = sum(id(parameter) not in names for parameter in parameters)
    if strangers:
        raise ConfigError(
            f"{strangers} of the optimizer's {len(parameters)} parameters are not the model's: it was built before "
            f"the model was wrapped (give optim_wrapper as a dict), or steps something beside it."
        )
    return names
