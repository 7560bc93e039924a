"""Joining the ranks of a job: under ``torchrun`` the process group is made here, where nobody has made one.

Decides backend, device and deadline of that group. A group that was there before is used as it is, and stays; one
that was made here is destroyed when the process ends.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from asynchooks.errors import ConfigError
from asynchooks.registry import check_options

__all__ = ["join_ranks"]

logger = logging.getLogger(__name__)

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_LAUNCHERS = ("pytorch", "none")
_DEADLINE_S = 1800.0  # of one collective: ranks may wait for the first one's store


def join_ranks(
    launcher: str | None, env_cfg: Mapping[str, Any] | None, device: str | torch.device | None
) -> str | torch.device | None:
    """Make the process group, if this process is one of several ranks and has none; return the model's device.

    Args:
        launcher: "pytorch" or None take ``torchrun``'s environment where it is there; "none" ignores it.
        env_cfg: MMEngine's dict; ``dist_cfg`` in it has ``backend`` and ``timeout`` (seconds).
        device: where the model is to be; None is the rank's own accelerator, or stays where it is on CPUs.

    Raises:
        ConfigError: an option is wrong, or the backend is not there.
    """
    options = _dist_options(env_cfg)
    if launcher is not None and launcher not in _LAUNCHERS:
        raise ConfigError(
            f"launcher is 'pytorch', 'none' or None, not {launcher!r}. Start ranks with torchrun; "
            f"under Slurm, with `srun torchrun ...`."
        )
    if not dist.is_available() or dist.is_initialized():
        return device
    missing = [name for name in _VARIABLES if not os.environ.get(name)]
    if launcher == "none" or missing:
        _explain_absence(launcher, missing)
        return device
    return _make_group(options, device)


def _make_group(options: dict[str, Any], device: str | torch.device | None) -> str | torch.device | None:
    on_cuda = torch.cuda.is_available() and (device is None or torch.device(device).type == "cuda")
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if on_cuda:
        torch.cuda.set_device(local_rank)
        device = torch.device("cuda", local_rank)
    backend = options.pop("backend", None) or ("nccl" if on_cuda else "gloo")
    if "nccl" in backend and not (torch.cuda.is_available() and dist.is_nccl_available()):
        raise ConfigError(
            f"backend={backend!r} needs CUDA devices and torch with NCCL, and this rank has none. Leave the backend "
            "out, which takes what there is, or give 'gloo': env_cfg.dist_cfg.backend, with MMCV dist_params.backend."
        )
    if backend == "nccl":
        backend = "cpu:gloo,cuda:nccl"  # so that what lies on the CPU can be exchanged too
    timeout = timedelta(seconds=float(options.pop("timeout", _DEADLINE_S)))
    dist.init_process_group(backend, timeout=timeout, **{**_of_this_attempt(timeout, options), **options})
    atexit.register(_leave, dist.group.WORLD)
    logger.info("rank %d of %d, backend %s", dist.get_rank(), dist.get_world_size(), backend)
    return device


def _of_this_attempt(timeout: timedelta, options: Mapping[str, Any]) -> dict[str, Any]:
    """Where the ranks meet when ``torchrun`` has started them again.

    Its store outlives them, and torch 2.13 reads in it the addresses of the ranks that have died.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or attempt == "0" or options:
        return {}
    store, rank, world_size = next(rendezvous("env://", timeout=timeout))
    return {"store": PrefixStore(f"attempt_{attempt}", store), "rank": rank, "world_size": world_size}


def _leave(group: Any) -> None:
    if dist.is_initialized() and dist.group.WORLD is group:
        dist.destroy_process_group()


def _dist_options(env_cfg: Mapping[str, Any] | None) -> dict[str, Any]:
    if env_cfg is None:
        return {}
    if not isinstance(env_cfg, Mapping):
        raise ConfigError(f"env_cfg is a dict such as dict(dist_cfg=dict(backend='nccl')), not {env_cfg!r}.")
    options = dict(env_cfg.get("dist_cfg") or {})
    check_options(dist.init_process_group, options)
    return options


def _explain_absence(launcher: str | None, missing: list[str]) -> None:
    if launcher == "pytorch":
        logger.warning(
            "launcher='pytorch', but torchrun's %s is not set: this process trains on its own. Start ranks with "
            "`torchrun --nproc-per-node N ...`",
            ", ".join(missing),
        )
    if launcher == "none" and int(os.environ.get("WORLD_SIZE") or 1) > 1:
        logger.warning(
            "launcher='none': this process trains on its own, though it is rank %s of %s",
            os.environ.get("RANK"),
            os.environ["WORLD_SIZE"],
        )
