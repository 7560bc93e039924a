"""What a TCPStore answers, and how fast, when several processes ask it at once."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from torch._C._distributed_c10d import TCPStore

from asynchooks.testing import run_ranks

__all__ = ["StoreCost", "measure_store", "store_table"]

_SIZES = (8, 1_000, 64_000, 1_000_000)
_KEYS = 16
_WAIT = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class StoreCost:
    """One operation at one number of clients.

    Attributes:
        operation: of the store.
        nbytes: of each value.
        clients: processes that do the same at the same time, each over a connection of its own.
        median_us, p99_us: of a call, over all clients.
        per_s: calls answered in a second, all clients together.
    """

    operation: str
    nbytes: int
    clients: int
    median_us: float
    p99_us: float
    per_s: float


def measure_store(clients: int, *, seconds: float = 0.3, libuv: bool = True) -> list[StoreCost]:
    """Ask a store in this process from so many others; every operation for so many seconds."""
    server = TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False, use_libuv=libuv)
    spans = run_ranks(
        clients, _ask, server.port, clients, seconds, with_group=False, timeout_s=120.0 + 60 * seconds
    )
    costs = []
    for operation, nbytes in spans[0]:
        each = [found[operation, nbytes] for found in spans]
        times = sorted(value for took in each for value in took)
        per_s = sum(len(took) / sum(took) for took in each if took)
        p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
        costs.append(StoreCost(operation, nbytes, clients, statistics.median(times) * 1e6, p99 * 1e6, per_s))
    return costs


def store_table(costs: list[StoreCost]) -> str:
    """Return a table in Markdown: a row for each operation and size, a column for each number of clients."""
    counts = sorted({cost.clients for cost in costs})
    by = {(cost.operation, cost.nbytes, cost.clients): cost for cost in costs}
    head = " | ".join(f"{count} client{'s' * (count > 1)}: median, p99 µs, calls/s" for count in counts)
    lines = [f"| operation | bytes of a value | {head} |", "|---|---:" + "|---:" * len(counts) + "|"]
    for operation, nbytes in dict.fromkeys((cost.operation, cost.nbytes) for cost in costs):
        cells = [
            f"{cost.median_us:,.0f}, {cost.p99_us:,.0f}, {cost.per_s:,.0f}"
            for count in counts
            if (cost := by.get((operation, nbytes, count)))
        ]
        lines.append(f"| {operation} | {nbytes:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _ask(rank: int, port: int, clients: int, seconds: float) -> dict[tuple[str, int], list[float]]:
    """On each rank: the same operations in the same order, started together."""
    start = time.perf_counter()
    store = TCPStore("127.0.0.1", port, None, is_master=False, wait_for_workers=False)
    found: dict[tuple[str, int], list[float]] = {("connect", 0): [time.perf_counter() - start]}
    for nbytes in _SIZES:
        value = os.urandom(nbytes).hex()[:nbytes]
        keys = [f"{rank}/{nbytes}/{number}" for number in range(_KEYS)]
        operations = _operations(store, keys, value)
        for name, call in operations.items():
            if nbytes == _SIZES[-1] and name.startswith("multi_set"):
                call()  # 16 MB at a time tells nothing new
                continue
            _meet(store, f"{name}/{nbytes}", clients)
            found[name, nbytes] = _times(call, seconds)
    _meet(store, "woken", clients)
    if clients > 1:
        found["set to woken wait", 8] = _wakings(store, rank, clients)
    _meet(store, "done", clients)
    return found


def _operations(store: Any, keys: list[str], value: str) -> dict[str, Callable[[], Any]]:
    operations: dict[str, Callable[[], Any]] = {
        "set": lambda: store.set(keys[0], value),
        "get, there": lambda: store.get(keys[0]),
        "wait, there": lambda: store.wait(keys[:1], _WAIT),
        f"multi_set of {_KEYS}": lambda: store.multi_set(keys, [value] * _KEYS),
        f"multi_get of {_KEYS}": lambda: store.multi_get(keys),
    }
    if len(value) == _SIZES[0]:
        operations["add"] = lambda: store.add("counter", 1)
        operations["check"] = lambda: store.check(keys[:1])
    return operations


def _times(call: Callable[[], Any], seconds: float) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end or not times:
        call()
        times.append(time.perf_counter() - start)
    return times


def _wakings(store: TCPStore, rank: int, clients: int) -> list[float]:
    """How long after the first rank's set the others' waits return; the clock is the machine's."""
    times = []
    for number in range(50):
        _meet(store, f"round {number}", clients)
        if rank == 0:
            threading.Event().wait(0.003)  # the others wait by then
            store.set(f"woken {number}", str(time.perf_counter_ns()))
        else:
            store.wait([f"woken {number}"], _WAIT)
            at = time.perf_counter_ns()
            times.append((at - int(store.get(f"woken {number}"))) / 1e9)
    return times


def _meet(store: TCPStore, name: str, clients: int) -> None:
    if store.add(f"meet {name}", 1) == clients:
        store.set(f"met {name}", "")
    store.wait([f"met {name}"], _WAIT)


def as_rows(costs: list[StoreCost]) -> list[dict[str, Any]]:
    """Return what goes into a JSON file."""
    return [asdict(cost) for cost in costs]
