"""Random numbers: seeding a run, and its generators' states in plain types that a checkpoint may hold."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from asynchooks.distributed import rank

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["derived_rng", "restore_rng", "rng_state", "seed_everything", "seed_worker"]


def seed_everything(seed: int | None, *, deterministic: bool = False, differs_by_rank: bool = False) -> None:
    """Seed Python's, NumPy's and torch's global generators.

    Args:
        seed: 0 <= seed < 2**32; None leaves the generators as they are.
        deterministic: also ask torch for deterministic algorithms, for the whole process.
        differs_by_rank: whether each rank of a process group adds its number to the seed.
    """
    if seed is not None:
        seed = (seed + rank()) % 2**32 if differs_by_rank else seed
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the global generator is what data pipelines draw from
        torch.manual_seed(seed)
    if deterministic:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


def seed_worker(number: int, worker_id: int) -> None:
    """Seed a worker process of a rank's loader apart from those of other ranks.

    Torch has seeded it from the rank's own generator already, which by default is the same on every rank.

    Args:
        number: the rank.
        worker_id: number of the worker, which its seed holds already.
    """
    del worker_id
    worker: Any = get_worker_info()
    seed_everything((worker.seed + number * worker.num_workers) % 2**32)


def rng_state(*, devices: bool = True) -> dict[str, Any]:
    """Return the states of all global generators, as tensors and plain types.

    Args:
        devices: whether the accelerators' generators are included.
    """
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    version, internal, gauss_next = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [
            name,
            torch.from_numpy(np.asarray(keys, np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ],
        "python": [version, torch.tensor(internal, dtype=torch.int64), gauss_next],
    }
    if devices and torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_rng(state: Mapping[str, Any]) -> None:
    """Put the global generators into the states that `rng_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss_next))
    if "cuda" in state and torch.cuda.is_available():
        devices = min(len(state["cuda"]), torch.cuda.device_count())
        for index in range(devices):
            torch.cuda.set_rng_state(state["cuda"][index].cpu(), index)


def derived_rng(state: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return states for a rank that has none: those of generators seeded with another rank's state and a number.

    The global generators are as before afterwards.
    """
    digest = hashlib.sha256(state["torch"].cpu().numpy().tobytes() + number.to_bytes(8, "little")).digest()
    present = rng_state()
    try:
        seed_everything(int.from_bytes(digest[:4], "little"))
        return rng_state()
    finally:
        restore_rng(present)
