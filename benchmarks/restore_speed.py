"""How fast a checkpoint comes back: `restore` against reading the same bytes, and against torch.load.

The raw read is the limit: the same file into fresh memory, by as many threads as the store takes at once, with
nothing compared and nothing built; on the local disk also as `pread` does it, through the page cache. Contenders take
turns, in another order each round, so that a busy machine is busy for all. Cold rounds ask the kernel to drop the
file from the page cache first (``posix_fadvise``; no privilege needed).

    python benchmarks/restore_speed.py --gb 1 --rounds 7 --json restore_speed.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asynchooks.checkpoint import Checkpointer, Store, capture, open_store, restore, verify
from asynchooks.testing import s3_server

CHUNK_BYTES = 16 * 2**20
NAME = "iter_1.pth"


def state_of(nbytes: int) -> dict[str, Any]:
    """Weights and Adam's two averages: tensors of 4 MB and of a few kB."""
    torch.manual_seed(0)
    large = max(1, nbytes // 3 // 4_196_352)
    weights = {f"layer.{i}.weight": torch.randn(1024, 1024) for i in range(large)}
    weights |= {f"layer.{i}.bias": torch.randn(512) for i in range(large)}
    averages = {
        i: {"step": torch.tensor(1.0), "exp_avg": torch.randn_like(w), "exp_avg_sq": torch.randn_like(w)}
        for i, w in enumerate(weights.values())
    }
    return {"state_dict": weights, "optimizer": {"state": averages}, "meta": {"iter": 1}}


def raw_read(store: Store, nbytes: int) -> None:
    """Read the file into fresh memory, and nothing else."""
    memory = np.empty(nbytes, np.uint8)

    def read(start: int) -> None:
        end = min(start + CHUNK_BYTES, nbytes)
        if store.read_into(NAME, start, [memory[start:end].data]) != end - start:
            raise RuntimeError("a short read")

    read(0)
    if store.parallel_reads == 1:
        filled = 0
        with closing(store.read(NAME)) as pieces:  # type: ignore[type-var] # a generator
            for piece in pieces:
                np.copyto(memory[filled : filled + piece.nbytes], np.frombuffer(piece, np.uint8))
                filled += piece.nbytes
        return
    with ThreadPoolExecutor(store.parallel_reads) as threads:
        list(threads.map(read, range(CHUNK_BYTES, nbytes, CHUNK_BYTES)))


def raw_pread(path: Path, nbytes: int, parallel: int) -> None:
    """The same through the page cache, whether it holds the file or not."""
    memory = np.empty(nbytes, np.uint8)
    with path.open("rb") as file, ThreadPoolExecutor(parallel) as threads:

        def read(start: int) -> None:
            end = min(start + CHUNK_BYTES, nbytes)
            while start < end:
                start += os.preadv(file.fileno(), [memory[start:end].data], start)

        list(threads.map(read, range(0, nbytes, CHUNK_BYTES)))


def touched(state: Any) -> None:
    """Read a byte of each page, so that a mapped file is really there."""
    for tensor in tensors_in(state):
        tensor.untyped_storage()
        torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())[::4096].sum()


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors of nested dicts."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)


def drop(path: Path) -> None:
    """Have the kernel forget the file's pages."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def warm(path: Path) -> None:
    """Have the kernel hold the file's pages."""
    piece = bytearray(CHUNK_BYTES)
    with path.open("rb", buffering=0) as file:
        while file.readinto(piece):
            pass


def measured(
    ways: dict[str, Callable[[], object]], rounds: int, before: Callable[[], object]
) -> dict[str, list[float]]:
    """Seconds of each way, round by round; one more round goes first and does not count."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(rounds + 1):
        turn = list(ways.items())
        for name, way in turn[index % len(turn) :] + turn[: index % len(turn)]:
            before()
            start_s = time.perf_counter()
            result = way()
            seconds = time.perf_counter() - start_s
            del result
            if index:
                found[name].append(seconds)
    return found


def local(folder: str, nbytes: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """The local disk, with the file in the page cache and without."""
    info = Checkpointer(folder).save_sync(capture(state_of(nbytes)), name=NAME, step=1)
    store, path = open_store(folder), Path(info.url)
    target = restore(path)
    ways: dict[str, Callable[[], object]] = {
        "raw read": lambda: raw_read(store, info.nbytes),
        "raw pread": lambda: raw_pread(path, info.nbytes, store.parallel_reads),
        "restore": lambda: restore(path),
        "restore into": lambda: restore(path, into=target),
        "verify": lambda: verify(path),
        "torch.load": lambda: torch.load(path, weights_only=True),
        "torch.load mmap": lambda: touched(torch.load(path, weights_only=True, mmap=True)),
    }
    return {
        "local, warm": measured(ways, rounds, lambda: warm(path)),
        "local, cold": measured(ways, rounds, lambda: drop(path)),
    }


def remote(nbytes: int, rounds: int, stack: ExitStack) -> dict[str, dict[str, list[float]]]:
    """The embedded S3 server."""
    server = stack.enter_context(s3_server())
    url, options = f"{server.make_bucket('restore')}/run", dict(server.storage_options)
    info = Checkpointer(url, storage_options=options).save_sync(capture(state_of(nbytes)), name=NAME, step=1)
    store = open_store(url, options)
    file = Path(tempfile.mkstemp()[1])
    stack.callback(file.unlink)

    def downloaded() -> object:
        with file.open("wb") as local_file, closing(store.read(NAME)) as pieces:  # type: ignore[type-var] # a generator
            for piece in pieces:
                local_file.write(piece)
        return torch.load(file, weights_only=True)

    ways: dict[str, Callable[[], object]] = {
        "raw read": lambda: raw_read(open_store(url, options), info.nbytes),
        "restore": lambda: restore(info.url, storage_options=options),
        "verify": lambda: verify(info.url, storage_options=options),
        "download, torch.load": downloaded,
    }
    return {"s3 (rclone)": measured(ways, rounds, lambda: None)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gb", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", help="where the local file goes: a disk, not a RAM disk")
    parser.add_argument("--skip-s3", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    nbytes = int(arguments.gb * 1e9)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.folder))
        results = local(folder, nbytes, arguments.rounds)
        if not arguments.skip_s3:
            results |= remote(nbytes, arguments.rounds, stack)
    print(f"{'':14} {'':22} {'GB/s':>6} {'least':>6} {'most':>6} {'of raw':>7}")
    for place, ways in results.items():
        raw_s = statistics.median(ways["raw read"])
        for name, seconds in ways.items():
            speeds = sorted(nbytes / each / 1e9 for each in seconds)
            share = raw_s / statistics.median(seconds)
            middle, least, most = statistics.median(speeds), speeds[0], speeds[-1]
            print(f"{place:14} {name:22} {middle:6.2f} {least:6.2f} {most:6.2f} {share:7.0%}")
    if arguments.json:
        machine = {"cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}
        arguments.json.write_text(
            json.dumps({"bytes": nbytes, "machine": machine, "seconds": results}, indent=1)
        )


if __name__ == "__main__":
    main()
