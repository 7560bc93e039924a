"""How a run takes up a checkpoint's content: on as many ranks or others, whole tensors or parts.

Whole tensors become each rank's parts where the model is sharded; an optimizer's state may be by numbers, as torch
and MMEngine write it, or by names.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from asynchooks import checkpoint as checkpoints
from asynchooks.distributed import is_first_rank, rank, world_size
from asynchooks.errors import ForeignCheckpointError
from asynchooks.optim import (
    fitted,
    fitted_to,
    hold_parts,
    is_named,
    is_sharded,
    numbered_state,
    put_back_gradients,
    unwrapped,
)
from asynchooks.runner._hook_states import load_hook_states
from asynchooks.runner._random import derived_rng

if TYPE_CHECKING:
    from asynchooks.runner._context import RunContext

__all__ = ["check_content", "load_optimizer", "load_weights", "own_resume", "take_up"]

logger = logging.getLogger(__name__)

_GRADIENTS = ("accumulated_grads", "kept_grads")


def take_up(run: RunContext, checkpoint: Mapping[str, Any], url: str) -> None:
    """Continue where a checkpoint was taken. Every rank calls it with the same content.

    Raises:
        ForeignCheckpointError: it does not fit this run, or holds too little to continue from.
    """
    load_weights(run.model, checkpoint["state_dict"], url, strict=True)
    if "message_hub" in checkpoint:
        run.message_hub.load_state_dict(checkpoint["message_hub"])
    resume = own_resume(checkpoint.get("resume") or {}, url)
    if run.optim_wrapper is not None:
        load_optimizer(run, checkpoint, url)
        _load_gradients(run, resume, checkpoint, url)
    _load_schedulers(run.param_schedulers or (), checkpoint, url)
    if run.executor is not None:
        load_hook_states(run.executor.hooks, resume.get("hooks", {}))
    taken = {**checkpoint, "resume": resume} if "resume" in checkpoint else checkpoint
    run._load_position(taken)  # noqa: SLF001 - of the same package


def check_content(checkpoint: Any, url: str) -> dict[str, Any]:
    """Return a loaded checkpoint if it looks like one of a training run.

    Raises:
        ForeignCheckpointError: it does not.
    """
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), Mapping):
        came = sorted(map(str, checkpoint))[:8] if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise ForeignCheckpointError(
            f"{url} is no checkpoint of a training run: expected a dict with 'state_dict' (and 'meta' to resume), "
            f"it holds {came}."
        )
    return checkpoint


def load_weights(model: nn.Module, state_dict: Mapping[str, Any], url: str, *, strict: bool) -> None:
    """Load weights into a model.

    Raises:
        ForeignCheckpointError: they do not fit: other shapes, other names (``strict``), or nothing in common.
    """
    target = unwrapped(model)
    checkpoints.before_step()
    hold_parts(target)
    try:
        missing, unexpected = target.load_state_dict(fitted(state_dict, target.state_dict()), strict=strict)
    except RuntimeError as error:
        raise ForeignCheckpointError(f"{url} does not fit {type(target).__name__}: {error}") from error
    if missing and len(missing) == len(target.state_dict()):
        raise ForeignCheckpointError(
            f"{url} has no weight of {type(target).__name__}: it holds {list(state_dict)[:5]}, "
            f"the model {missing[:5]}."
        )
    if missing or unexpected:
        logger.warning("%s: missing in the checkpoint: %s; not in the model: %s", url, missing, unexpected)


def own_resume(resume: Mapping[str, Any], url: str) -> dict[str, Any]:
    """Return what this rank continues from: its own states, or those of another number of ranks, said aloud."""
    ranks = resume.get("ranks")
    if ranks is None and world_size() == 1:
        return dict(resume)
    saved = int(resume.get("world_size", 1))
    own = {key: value for key, value in resume.items() if key not in ("ranks", "world_size")}
    states = _by_rank(ranks) if ranks is not None else {0: own}
    if saved != world_size() and is_first_rank():
        logger.warning(
            "%s was saved by %d ranks, and %d continue: the data goes on where it was; random numbers of "
            "ranks that are new start from seeds derived from the others'",
            url,
            saved,
            world_size(),
        )
    number = rank()
    if number in states:
        mine = dict(states[number])
    else:
        mine = dict(states.get(number % saved, states[min(states)]))
        if mine.get("rng") is not None:
            mine["rng"] = derived_rng(mine["rng"], number)
    if saved != world_size():
        for gradients in _GRADIENTS:
            mine.pop(gradients, None)
            own.pop(gradients, None)
    return {**own, **mine}


def load_optimizer(run: RunContext, checkpoint: Mapping[str, Any], url: str) -> None:
    """Load a checkpoint's state of the optimizer, or of several by name, of either form.

    Raises:
        ForeignCheckpointError: there is none, or it does not fit.
    """
    if "optimizer" not in checkpoint:
        raise ForeignCheckpointError(
            f"{url} holds no optimizer state, so a run cannot be resumed from it; use load_from=... to start anew "
            f"with its weights."
        )
    wrapper, state = run.optim_wrapper, checkpoint["optimizer"]
    extra = checkpoint.get("optimizer_extra") or {}
    try:
        optimizers = getattr(wrapper, "optimizer", None)
        if isinstance(optimizers, Mapping):
            fitting = {
                name: _fitting(run.model, optimizers[name], each, extra.get(name, {}))
                if name in optimizers
                else each
                for name, each in state.items()
            }
        else:
            fitting = _fitting(run.model, optimizers, state, extra)
        wrapper.load_state_dict(fitting)
    except (ValueError, KeyError, TypeError) as error:
        raise ForeignCheckpointError(f"The optimizer state in {url} does not fit: {error}") from error


def _by_rank(ranks: Any) -> dict[int, Mapping[str, Any]]:
    items = ranks.items() if isinstance(ranks, Mapping) else enumerate(ranks)
    return {int(number): state for number, state in items}


def _fitting(model: nn.Module, optimizer: Any, state: Any, extra: Mapping[str, Any]) -> Any:
    """Return one optimizer's state, of either form, by numbers and spread as its parameters are."""
    if not isinstance(state, Mapping) or not hasattr(optimizer, "param_groups"):
        return state
    if is_named(state):
        state = {**numbered_state(state, model, optimizer), **extra}
    return fitted_to(state, optimizer) if "state" in state else state


def _load_gradients(
    run: RunContext, resume: Mapping[str, Any], checkpoint: Mapping[str, Any], url: str
) -> None:
    grads, kept = (resume.get(name) for name in _GRADIENTS)
    if grads is not None and (kept is not None) is is_sharded(run.model):
        run.optim_wrapper.load_accumulated_grads(grads)
        if kept is not None:
            put_back_gradients(run.model, kept)
        return
    before = checkpoint.get("resume") or {}
    states = _by_rank(before["ranks"]).values() if before.get("ranks") is not None else [before]
    if any("accumulated_grads" in state for state in states):
        logger.warning(
            "%s: the gradients that waited for their step are those of other ranks; they are left out", url
        )


def _load_schedulers(schedulers: Any, checkpoint: Mapping[str, Any], url: str) -> None:
    states = checkpoint.get("param_schedulers", [])
    named = states if isinstance(states, Mapping) else {}
    if isinstance(schedulers, Mapping):
        for name, each in schedulers.items():
            _load_schedulers(each, {"param_schedulers": named.get(name, [])}, url)
        return
    states = [] if named else states
    if len(states) != len(schedulers):
        raise ForeignCheckpointError(
            f"{url} holds {len(states)} parameter schedulers, this run has {len(schedulers)}; resume with the same "
            f"param_scheduler, or use load_from=... to start anew with its weights."
        )
    for scheduler, state in zip(schedulers, states, strict=True):
        scheduler.load_state_dict(state)
