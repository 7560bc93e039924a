"""Reads ``paramwise_cfg``: which options there are, what their values may be, what they need. Pure.

Every mistake is an error when the constructor is made, with the right key for a near miss.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from asynchooks.errors import ConfigError, UnknownOptionError, did_you_mean

__all__ = ["MULTIPLIERS", "checked_paramwise", "sorted_keys"]

MULTIPLIERS = (
    "bias_lr_mult",
    "bias_decay_mult",
    "norm_decay_mult",
    "dwconv_decay_mult",
    "dcn_offset_lr_mult",
)
_CUSTOM = ("lr_mult", "decay_mult")
_NEED_DECAY = ("bias_decay_mult", "norm_decay_mult", "dwconv_decay_mult", "flat_decay_mult")
_NEED_LR = ("bias_lr_mult", "dcn_offset_lr_mult")


def checked_paramwise(
    owner: str,
    paramwise_cfg: Any,
    known: Collection[str],
    optimizer_cfg: Mapping[str, Any],
    *,
    extra_fields: bool = False,
) -> dict[str, Any]:
    """Return a copy of ``paramwise_cfg``, without the factors that are None.

    Args:
        owner: class name for messages.
        paramwise_cfg: the options, or None.
        known: names of the options.
        optimizer_cfg: the optimizer's configuration: multiples need the value that they multiply.
        extra_fields: whether entries of ``custom_keys`` may hold further fields of a parameter group.

    Raises:
        UnknownOptionError: there is no such option.
        ConfigError: a value is wrong, or what it multiplies is missing.
    """
    if paramwise_cfg is None:
        return {}
    if not isinstance(paramwise_cfg, Mapping):
        raise ConfigError(f"{owner}: paramwise_cfg is a dict or None, not {paramwise_cfg!r}.")
    for name, value in paramwise_cfg.items():
        if name not in known:
            raise UnknownOptionError(
                f"{owner}: paramwise_cfg has no option {name!r}.{did_you_mean(str(name), known)} "
                f"It takes: {', '.join(known)}."
            )
        if name.endswith("_mult") and value is not None:
            _check_number(owner, name, value)
            _check_base(owner, name, optimizer_cfg)
    bypass = paramwise_cfg.get("bypass_duplicate", False)
    if not isinstance(bypass, bool):
        raise ConfigError(f"{owner}: bypass_duplicate is True or False, not {bypass!r}.")
    custom_keys = paramwise_cfg.get("custom_keys")
    if custom_keys is not None:
        _check_custom_keys(owner, custom_keys, optimizer_cfg, extra_fields=extra_fields)
    return {k: v for k, v in paramwise_cfg.items() if v is not None}


def sorted_keys(custom_keys: Mapping[str, Any]) -> list[str]:
    """Return the keys in the order in which they are tried: the longest first, equal ones by the alphabet."""
    return sorted(custom_keys, key=lambda key: (-len(key), key))


def _check_custom_keys(
    owner: str, custom_keys: Any, optimizer_cfg: Mapping[str, Any], *, extra_fields: bool
) -> None:
    if not isinstance(custom_keys, Mapping):
        raise ConfigError(
            f"{owner}: custom_keys is a dict such as {{'backbone': dict(lr_mult=0.1)}}, not {custom_keys!r}."
        )
    for key, options in custom_keys.items():
        if not isinstance(options, Mapping):
            raise ConfigError(
                f"{owner}: custom_keys[{key!r}] is a dict such as dict(lr_mult=0.1), not {options!r}."
            )
        for name, value in options.items():
            if name in _CUSTOM:
                _check_number(owner, f"custom_keys[{key!r}][{name!r}]", value)
                _check_base(owner, name, optimizer_cfg)
                continue
            near = did_you_mean(str(name), _CUSTOM, cutoff=0.8)
            if near or not extra_fields:
                raise UnknownOptionError(
                    f"{owner}: custom_keys[{key!r}] has no option {name!r}.{near} It takes: {', '.join(_CUSTOM)}."
                )


def _check_number(owner: str, name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{owner}: {name} is a number, not {value!r}.")


def _check_base(owner: str, name: str, optimizer_cfg: Mapping[str, Any]) -> None:
    needed = "weight_decay" if name in (*_NEED_DECAY, "decay_mult") else None
    needed = "lr" if name in (*_NEED_LR, "lr_mult") else needed
    if needed is not None and optimizer_cfg.get(needed) is None:
        raise ConfigError(
            f"{owner}: {name} multiplies the optimizer's {needed}, so optimizer=dict(...) must say {needed}=...; "
            f"it has {list(optimizer_cfg)}."
        )
