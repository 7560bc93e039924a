"""What the logger hook takes of a run on the training thread, beside the log processor's record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asynchooks.execution import current_executor

__all__ = ["hand_over", "is_alone", "name_of", "plain_config", "tested"]


def is_alone() -> bool:
    """Whether no other hook of the executor hands outputs and metrics to the message hub."""
    executor = current_executor()
    return executor is not None and not any(
        base.__name__ == "RuntimeInfoHook" for hook in executor.hooks for base in type(hook).__mro__
    )


def hand_over(hub: Any, mode: str, values: Any) -> None:
    """Give what is one number to the message hub; tensors stay tensors."""
    if values is None:
        return
    for name, value in values.items() if isinstance(values, Mapping) else (("loss", values),):
        if isinstance(value, int | float) or (hasattr(value, "numel") and value.numel() == 1):
            hub.update_scalar(f"{mode}/{name}", value)


def name_of(runner: Any) -> str | None:
    """Return the line that names the run."""
    name = getattr(runner, "experiment_name", None)
    return f"Exp name: {name}" if name else None


def tested(hub: Any) -> dict[str, Any]:
    """Return the results of a test that are no scalars, as JSON can hold them; what it cannot hold is left out."""
    infos = hub.runtime_info.items()
    results = {key.removeprefix("test/"): _plain(value) for key, value in infos if key.startswith("test/")}
    return {key: value for key, value in results.items() if value is not None}


def plain_config(cfg: Any) -> Any:
    """Return a configuration as the background may have it: a Config as it is, a dict without its live objects."""
    if hasattr(cfg, "pretty_text") or isinstance(cfg, str):
        return cfg
    return _described(cfg) if isinstance(cfg, Mapping) else str(cfg)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, str | int | float | bool):
        return value
    return value.tolist() if hasattr(value, "tolist") else None


def _described(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _described(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_described(each) for each in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return getattr(value, "__qualname__", None) or type(value).__qualname__
