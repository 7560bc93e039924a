"""Reads the arguments of a Runner: which belong together, which hooks stand by default, which loop is meant.

Decides what is wrong with a configuration and says it at construction, with the right form of known slips.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from asynchooks.errors import ConfigError, UnknownNameError, UnknownOptionError, did_you_mean
from asynchooks.registry import LOOPS, check_options
from asynchooks.runner._loops import TrainLoop, check_loop_values

__all__ = [
    "check_complete",
    "checked_custom_hooks",
    "checked_randomness",
    "chosen_default_hooks",
    "reject_unknown",
    "resolve_eval_loop",
    "resolve_train_loop",
    "warn_of_no_effect",
]

logger = logging.getLogger(__name__)

DEFAULT_HOOKS: dict[str, dict[str, Any]] = {
    "runtime_info": {"type": "RuntimeInfoHook"},
    "timer": {"type": "IterTimerHook"},
    "sampler_seed": {"type": "DistSamplerSeedHook"},
    "logger": {"type": "LoggerHook"},
    "param_scheduler": {"type": "ParamSchedulerHook"},
    "checkpoint": {"type": "CheckpointHook", "interval": 1},
}

_MOVED = {
    "scheduler": "It is called param_scheduler.",
    "optimizer": "Write optim_wrapper=dict(optimizer=...).",
    "max_epochs": "Write train_cfg=dict(by_epoch=True, max_epochs=...).",
    "max_iters": "Write train_cfg=dict(by_epoch=False, max_iters=...).",
    "hooks": "Write custom_hooks=[...].",
    "seed": "Write randomness=dict(seed=...).",
    "resume_from": "Write resume=<url of the checkpoint>.",
    "evaluator": "Write val_evaluator=... or test_evaluator=...",
}
_NO_EFFECT = ("data_preprocessor",)
_LOOP_OPTIONS = ("by_epoch", "max_epochs", "max_iters", "val_begin", "val_interval", "dynamic_intervals")


def reject_unknown(what: str, unknown: Iterable[str], known: Iterable[str]) -> None:
    """Raise `UnknownOptionError` for the first unknown argument, with the right form if it is a known slip."""
    for name in unknown:
        hint = f" {_MOVED[name]}" if name in _MOVED else did_you_mean(name, known)
        raise UnknownOptionError(f"{what} takes no argument {name!r}.{hint} It takes: {', '.join(known)}.")


def warn_of_no_effect(cfg: Iterable[str], also: Iterable[str] = ()) -> None:
    """Name the entries of an MMEngine configuration that its runner would use and this one does not."""
    idle = [*(name for name in cfg if name in _NO_EFFECT), *also]
    if idle:
        logger.warning("entries of the configuration that have no effect here: %s", ", ".join(idle))


def check_complete(what: str, parts: Mapping[str, Any], optional: Iterable[str] = ()) -> None:
    """Raise unless all parts of a training, validation or test are given, or none of them."""
    needed = {name: part for name, part in parts.items() if name not in optional}
    given = [name for name, part in parts.items() if part is not None]
    missing = [name for name, part in needed.items() if part is None]
    if given and missing:
        raise ConfigError(
            f"To {what}, a Runner needs {', '.join(needed)}; {', '.join(given)} came without {', '.join(missing)}."
        )


def chosen_default_hooks(default_hooks: Any) -> list[Any]:
    """Return the default hooks: MMEngine's six, changed, left out (None) or extended by name."""
    if default_hooks is not None and not isinstance(default_hooks, Mapping):
        raise ConfigError(
            f"default_hooks is a dict of names to hooks, such as dict(timer=None), not {default_hooks!r}."
        )
    hooks: dict[str, Any] = dict(DEFAULT_HOOKS)
    for name, hook in (default_hooks or {}).items():
        if hook is None and name not in DEFAULT_HOOKS:
            raise UnknownNameError(
                f"default_hooks: {name}=None leaves out a default hook, but none is called {name!r}."
                f"{did_you_mean(name, DEFAULT_HOOKS)} There are {', '.join(DEFAULT_HOOKS)}."
            )
        if isinstance(hook, Mapping) and "type" not in hook:
            if name not in DEFAULT_HOOKS:
                raise ConfigError(
                    f"default_hooks: {name}={dict(hook)!r} has no 'type', and {name!r} is no default hook."
                    f"{did_you_mean(name, DEFAULT_HOOKS)}"
                )
            hook = {"type": DEFAULT_HOOKS[name]["type"], **hook}  # noqa: PLW2901
        hooks[name] = hook
    return [hook for hook in hooks.values() if hook is not None]


def checked_custom_hooks(custom_hooks: Any) -> Sequence[Any]:
    """Return the custom hooks, which come as a list."""
    if custom_hooks is None:
        return []
    if isinstance(custom_hooks, list | tuple):
        return custom_hooks
    raise ConfigError(
        f"custom_hooks is a list of hooks or dicts; write custom_hooks=[dict(type=...)], with square brackets, "
        f"instead of {custom_hooks!r}."
    )


def checked_randomness(randomness: Mapping[str, Any] | None) -> tuple[int | None, dict[str, bool]]:
    """Return the seed (or None), and the options with which the generators are seeded."""
    known = {"seed": None, "deterministic": False, "diff_rank_seed": False}
    options = {**known, **(randomness or {})}
    reject_unknown("randomness", set(options) - set(known), known)
    seed = options["seed"]
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32):
        raise ConfigError(f"randomness: seed is an int from 0 to 2**32 - 1, or None, not {seed!r}.")
    for name in ("deterministic", "diff_rank_seed"):
        if not isinstance(options[name], bool):
            raise ConfigError(f"randomness: {name} is True or False, not {options[name]!r}.")
    return seed, {"deterministic": options["deterministic"], "differs_by_rank": options["diff_rank_seed"]}


def resolve_train_loop(cfg: Any, *, scope: str | None = None) -> tuple[Any, dict[str, Any]]:
    """Return the class of the training loop and its options.

    ``by_epoch`` chooses the loop; where it is left out, ``max_epochs`` or ``max_iters`` does.
    """
    if not isinstance(cfg, Mapping):
        raise ConfigError(f"train_cfg is a dict such as dict(by_epoch=True, max_epochs=3), not {cfg!r}.")
    options = dict(cfg)
    if "type" in options:
        if "by_epoch" in options:
            raise ConfigError("train_cfg names the loop by 'type' or by 'by_epoch', not by both.")
    else:
        by_epoch = options.pop("by_epoch", "max_iters" not in options)
        if not isinstance(by_epoch, bool):
            raise ConfigError(f"train_cfg: by_epoch is True or False, not {by_epoch!r}.")
        options["type"] = "EpochBasedTrainLoop" if by_epoch else "IterBasedTrainLoop"
        wanted, other = ("max_epochs", "max_iters") if by_epoch else ("max_iters", "max_epochs")
        if other in options:
            raise ConfigError(f"train_cfg: by_epoch={by_epoch} goes with {wanted}, not with {other}.")
        if wanted not in options:
            near = next((name for name in options if did_you_mean(name, [wanted])), None)
            if near is None:
                raise ConfigError(f"train_cfg needs {wanted}; it has {list(cfg)}.")
    target, arguments = _loop(options, "train_cfg", scope, also=_LOOP_OPTIONS)
    if isinstance(target, type) and issubclass(target, TrainLoop):
        arguments = {name: _whole(value) for name, value in arguments.items()}
        check_loop_values(arguments)
    return target, arguments


def resolve_eval_loop(cfg: Any, mode: str, *, scope: str | None = None) -> tuple[Any, dict[str, Any]]:
    """Return the class of the validation or test loop and its options."""
    if cfg is None:
        cfg = {}
    if not isinstance(cfg, Mapping):
        raise ConfigError(f"{mode}_cfg is a dict, usually the empty dict(), not {cfg!r}.")
    kind = "ValLoop" if mode == "val" else "TestLoop"
    return _loop({"type": kind, **cfg}, f"{mode}_cfg", scope, provided=("evaluators",))


def _whole(value: Any) -> Any:
    """Return a whole number as an int: a file that computes ``max_iters / 5`` has a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _loop(
    cfg: Mapping[str, Any],
    what: str,
    scope: str | None,
    *,
    provided: tuple[str, ...] = (),
    also: tuple[str, ...] = (),
) -> tuple[Any, dict[str, Any]]:
    target, options = LOOPS.resolve(cfg, scope=scope)
    try:
        check_options(
            target, {"runner": None, "dataloader": None, **dict.fromkeys(provided), **options}, also=also
        )
    except ConfigError as error:
        error.add_note(f"in {what}={dict(cfg)!r}")
        raise
    return target, options
