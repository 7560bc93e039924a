"""What assembling DCP's metadata costs, and a request to the S3 server of this machine."""

from __future__ import annotations

import os
import pickle
import statistics
import time
import uuid

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from asynchooks.checkpoint._content import Content
from asynchooks.checkpoint._storage import open_store
from asynchooks.testing import s3_server

__all__ = ["measure_assembling", "measure_s3"]


def measure_assembling(names: int = 300, shards: int = 64) -> dict[str, float]:
    """Return s and bytes per item: to build and pickle what the first rank writes, from what it unpickles."""
    save_id = uuid.uuid4().hex
    results = []
    for rank in range(shards):
        file = f"__{rank}_0.{save_id}.distcp"
        items = [
            (
                MetadataIndex(f"model.layers.{name}.attention.weight", torch.Size([rank * 4, 0]), rank),
                _StorageInfo(file, name * 16_384, 16_384),
            )
            for name in range(names)
        ]
        results.append(pickle.dumps(items))
    begun = time.perf_counter()
    storage = dict(item for result in results for item in pickle.loads(result))
    tensors = {
        f"model.layers.{name}.attention.weight": TensorStorageMetadata(
            TensorProperties(torch.float32),
            torch.Size([shards * 4, 1024]),
            [
                ChunkStorageMetadata(torch.Size([rank * 4, 0]), torch.Size([4, 1024]))
                for rank in range(shards)
            ],
        )
        for name in range(names)
    }
    pickled = pickle.dumps(Metadata(tensors, planner_data={}, storage_data=storage))  # type: ignore[arg-type]
    assembled = time.perf_counter()
    replaced = pickled.replace(save_id.encode(), uuid.uuid4().hex.encode())
    ended = time.perf_counter()
    count = names * shards
    return {
        "item_s": (assembled - begun) / count,
        "item_bytes": len(pickled) / count,
        "cached_byte_s": (ended - assembled) / len(replaced),
    }


def measure_s3() -> dict[str, float]:
    """Return s of a small put and a delete, and bytes/s of one request, to rclone on this machine."""
    with s3_server() as server:
        (server.root / "scale").mkdir(exist_ok=True)
        store = open_store("s3://scale/run", server.storage_options)
        puts, deletes = [], []
        for number in range(40):
            begun = time.perf_counter()
            store.put(f"small{number}", Content.of(b"x" * 100))
            put = time.perf_counter()
            store.delete(f"small{number}")
            puts.append(put - begun)
            deletes.append(time.perf_counter() - put)
        data = Content.of(os.urandom(6 * 2**20))  # one request
        streams = []
        for _ in range(8):
            begun = time.perf_counter()
            store.put("large", data)
            streams.append(data.nbytes / (time.perf_counter() - begun))
        return {
            "put_s": statistics.median(puts),
            "delete_s": statistics.median(deletes),
            "stream_bps": statistics.median(streams),
        }
