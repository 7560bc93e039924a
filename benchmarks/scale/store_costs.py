"""What the rendezvous' store costs on this machine: a real TCPStore with 1, 2 and 4 real clients.

Server and clients share the machine, so that with several clients a server's own time per operation is at most what
is found. A `set` has no answer: an operation that has one ends each series.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from torch._C._distributed_c10d import TCPStore

from asynchooks.testing import run_ranks

__all__ = ["measure_store"]

_SMALL, _LARGE = 100, 1_000_000
_TIMES = {_SMALL: 2_000, 10_000: 1_000, 100_000: 200, _LARGE: 40}
_KEYS = 128
_LIMIT = timedelta(seconds=30)


def measure_store() -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Return the constants of the model (s), and every series that was measured."""
    series: list[dict[str, Any]] = []
    for action, size in [
        *((action, size) for action in ("set", "get") for size in _TIMES),
        *((action, _SMALL) for action in ("add", "check", "check_many", "multi_get")),
    ]:
        for clients in (1, 2, 4):
            times = _TIMES[size] // (10 if action in {"check_many", "multi_get"} else 1)
            spent = max(run_ranks(clients, _hammer, action, size, times, with_group=False))
            series.append(
                {"action": action, "bytes": size, "clients": clients, "s_per_op": spent / (clients * times)}
            )

    def least(action: str, size: int) -> float:
        return min(
            float(each["s_per_op"]) for each in series if (each["action"], each["bytes"]) == (action, size)
        )

    constants = {f"{action}_s": least(action, _SMALL) for action in ("set", "get", "add", "check")}
    constants["check_key_s"] = max(0.0, least("check_many", _SMALL) - constants["check_s"]) / (_KEYS - 1)
    constants["get_key_s"] = least("multi_get", _SMALL) / _KEYS
    for action in ("set", "get"):
        constants[f"{action}_byte_s"] = (least(action, _LARGE) - least(action, _SMALL)) / (_LARGE - _SMALL)
    constants["connection_s"] = run_ranks(1, _connect, with_group=False)[0]
    return constants, series


def _client() -> Any:
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(address, port, is_master=False, timeout=_LIMIT, wait_for_workers=False)


def _hammer(rank: int, action: str, size: int, times: int) -> float:
    store = _client()
    value = "x" * size
    keys = [f"{rank}/{number}" for number in range(_KEYS if size == _SMALL else 4)]
    for key in keys:
        store.set(f"value/{key}", value)
    values = [f"value/{key}" for key in keys]
    calls: dict[str, Callable[[], Any]] = {
        "set": partial(store.set, values[0], value),
        "get": partial(store.get, values[0]),
        "add": partial(store.add, f"count/{rank}", 1),
        "check": partial(store.check, values[:1]),
        "check_many": partial(store.check, values),
        "multi_get": partial(store.multi_get, values),
    }
    call = calls[action]
    clients = int(os.environ["WORLD_SIZE"])
    store.add("ready", 1)
    while store.add("ready", 0) < clients:
        time.sleep(0.001)  # the server does nothing but what is measured
    begun = time.perf_counter()
    for _ in range(times):
        call()
    store.check(values[:1])
    return time.perf_counter() - begun


def _connect(rank: int) -> float:
    del rank
    begun = time.perf_counter()
    connections = [_client() for _ in range(50)]
    return (time.perf_counter() - begun) / len(connections)
