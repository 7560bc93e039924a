"""Reads a checkpoint as anybody would, `dcp.load` in a process that did not write it, and compares every shard."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from sharded_peers.case import Shard
from sharded_peers.training import digest

__all__ = ["read_back"]

dcp: Any = torch.distributed.checkpoint

_DATA = re.compile(r"__(\d+)_.*\.distcp")


def read_back(folder: Path, step: int, shards: list[list[Shard]]) -> dict[str, Any]:
    """Return a verdict, and what lies there: bytes in the data files of each rank, and in others.

    Args:
        folder: of the checkpoint, on this machine.
        step: which it should be of.
        shards: what each rank held when it was saved.
    """
    rank_bytes, other_bytes = [0] * len(shards), 0
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        match = _DATA.fullmatch(path.name)
        if match:
            rank_bytes[int(match[1])] += path.stat().st_size
        else:
            other_bytes += path.stat().st_size
    torch.set_num_threads(1)
    try:
        verdict = _verdict(folder, step, shards)
    except Exception as error:  # noqa: BLE001 - what cannot be loaded is a result
        verdict = f"wrong: cannot be loaded: {type(error).__name__}: {str(error)[:300]}"
    return {"verdict": verdict, "rank_bytes": rank_bytes, "other_bytes": other_bytes}


def _verdict(folder: Path, step: int, shards: list[list[Shard]]) -> str:
    metadata = dcp.FileSystemReader(folder).read_metadata()
    found: dict[str, Any] = {
        name: torch.zeros(entry.size, dtype=entry.properties.dtype)
        for name, entry in metadata.state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    found["meta.step"] = -1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no process group here
        dcp.load(found, storage_reader=dcp.FileSystemReader(folder), no_dist=True)
    if found["meta.step"] != step:
        return f"wrong: step {found['meta.step']} instead of {step}"
    differs = []
    for rank, held in enumerate(shards):
        for name, offsets, lengths, expected in held:
            tensor = found.get(name)
            if tensor is None:
                return f"wrong: {name} is missing"
            for dim, (offset, length) in enumerate(zip(offsets, lengths, strict=True)):
                tensor = tensor.narrow(dim, offset, length)
            if digest(tensor) != expected:
                differs.append(f"{name} of rank {rank}")
    if differs:
        return f"wrong: {len(differs)} shards differ from the capture, {differs[0]} the first"
    return "equal"
