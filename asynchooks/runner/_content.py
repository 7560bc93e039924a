"""What stands in a checkpoint of a run, as one dict; whole for one file, or this rank's parts of it.

The keys are MMEngine's; one more, ``resume``, holds what a bit-identical continuation needs, of each rank under
``ranks``. Collectives: every rank calls, on the training thread, in the same order.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch.distributed.tensor import DTensor

from asynchooks._version import __version__
from asynchooks.distributed import gather_to_first, is_first_rank, rank, world_size
from asynchooks.optim import extra_state, is_sharded, kept_gradients, named_state, unwrapped
from asynchooks.runner._hook_states import hook_states

if TYPE_CHECKING:
    from asynchooks.runner._context import RunContext

__all__ = ["OBJECTS", "OF_RANKS", "gathered_whole", "live_content", "scheduler_states", "with_names"]

OBJECTS = frozenset({"meta", "message_hub", "param_schedulers", "optimizer_extra", "resume.*"})
"""What a sharded checkpoint holds as one object each, as the first rank has it."""

OF_RANKS = "resume.ranks"
"""Where it holds each rank's own object."""

_OF_RANKS = ("position", "rng", "accumulated_grads", "kept_grads")


def live_content(
    run: RunContext, *, save_optimizer: bool, save_param_scheduler: bool, meta: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content with the run's live tensors; no collective."""
    content: dict[str, Any] = {
        "meta": {
            "epoch": run.epoch,
            "iter": run.iter,
            "experiment_name": run.experiment_name,
            "seed": run.seed,
            "time": time.strftime("%Y%m%d_%H%M%S"),
            "asynchooks_version": __version__,
            **({} if run.cfg is None else {"cfg": getattr(run.cfg, "pretty_text", None) or str(run.cfg)}),
            **meta,
        },
        "state_dict": unwrapped(run.model).state_dict(),
        "message_hub": run.message_hub.state_dict(),
    }
    dataset = content["message_hub"]["runtime_info"].get("dataset_meta")
    if dataset is not None:  # where MMDetection's inference looks for the names of the classes
        content["meta"].setdefault("dataset_meta", dataset)
    if save_optimizer and run.optim_wrapper is not None:
        content["optimizer"] = run.optim_wrapper.state_dict()
    if save_param_scheduler and run.param_schedulers:
        content["param_schedulers"] = scheduler_states(run.param_schedulers)
    content["resume"] = {"position": run._position(), "rng": run._rng()}  # noqa: SLF001 - of the same package
    states = hook_states(run.executor.hooks if run.executor is not None else ())
    if states:
        content["resume"]["hooks"] = states
    if save_optimizer and getattr(run.optim_wrapper, "is_accumulating", False):
        content["resume"]["accumulated_grads"] = run.optim_wrapper.accumulated_grads()
        if is_sharded(run.model):
            content["resume"]["kept_grads"] = kept_gradients(run.model)
    return content


def gathered_whole(content: dict[str, Any]) -> dict[str, Any] | None:
    """Return the content for one file: parts gathered, on the CPU, and every rank's own states; on the first rank.

    The other ranks take part and get None.
    """
    if world_size() == 1:
        return content
    own = {key: content["resume"][key] for key in _OF_RANKS if key in content["resume"]}
    ranks = gather_to_first(own)
    wholes: dict[int, Any] = {}  # tied parts stay tied
    whole = {key: _whole(value, wholes) for key, value in content.items()}
    if ranks is None:
        return None
    whole["resume"] = {**whole["resume"], "world_size": world_size(), "ranks": ranks}
    return whole


def with_names(content: dict[str, Any], run: RunContext) -> dict[str, Any]:
    """Return the content of a sharded checkpoint: the optimizer's state by names, a rank's states by its number.

    What the wrapper adds to the optimizer's state stands under ``optimizer_extra``. Parts in the states of hooks,
    which the first rank writes alone, are gathered on its CPU.
    """
    sharded = dict(content)
    if "optimizer" in sharded:
        wrapper, state = run.optim_wrapper, sharded["optimizer"]
        if isinstance(wrapper.optimizer, Mapping):
            optimizers = wrapper.optimizer
            sharded["optimizer"] = {name: named_state(run.model, each) for name, each in optimizers.items()}
            extra = {name: extra_state(state[name]) for name in optimizers}
        else:
            sharded["optimizer"] = named_state(run.model, wrapper.optimizer)
            extra = extra_state(state)
        sharded["optimizer_extra"] = extra
    resume = dict(content["resume"])
    own = {key: resume.pop(key) for key in _OF_RANKS if key in resume}
    if "hooks" in resume:
        resume["hooks"] = _whole(resume["hooks"], {})
    sharded["resume"] = {**resume, "world_size": world_size(), "ranks": {str(rank()): own}}
    return sharded


def scheduler_states(schedulers: Any) -> Any:
    """Return the schedulers' states: a list, or one by name for several optimizers."""
    if isinstance(schedulers, Mapping):
        return {name: scheduler_states(each) for name, each in schedulers.items()}
    return [scheduler.state_dict() for scheduler in schedulers]


def _whole(value: Any, wholes: dict[int, Any]) -> Any:
    """Gather the parts in a tree, in its order; the first rank keeps them."""
    if isinstance(value, DTensor):
        key = id(value)
        if key not in wholes:
            gathered = DTensor.full_tensor(value.detach())  # type: ignore[arg-type]
            wholes[key] = (
                value,
                gathered.cpu() if is_first_rank() else None,
            )  # the part, so that its id stays
        return wholes[key][1]
    if isinstance(value, Mapping):
        items = {key: _whole(each, wholes) for key, each in value.items()}
        if all(items[key] is each for key, each in value.items()):
            return value  # as it came: an OrderedDict with torch's metadata, say
        return items
    if isinstance(value, list):
        return [_whole(each, wholes) for each in value]
    if type(value) is tuple:
        return tuple(_whole(each, wholes) for each in value)
    return value
