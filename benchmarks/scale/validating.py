"""The model beside the real protocol: real ranks, the real rendezvous, real puts to an S3 server on this machine."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from asynchooks.checkpoint._content import Content
from asynchooks.checkpoint._storage import open_store
from asynchooks.distributed import open_rendezvous
from asynchooks.testing import run_ranks, s3_server
from scale.assumptions import MB, Job, Layout, MeetingCosts, ObjectCosts
from scale.meeting import meet
from scale.writing import write_data

__all__ = ["Validated", "validate"]

_ROUNDS = 8
_ITEM_BYTES, _NAMES = 130, 300
_FILE_BYTES = 6 * MB


@dataclass(frozen=True, slots=True)
class Validated:
    """Medians over the rounds (s): data written, and from there until committed and all departed."""

    ranks: int
    real_write_s: float
    model_write_s: float
    real_meeting_s: tuple[float, float, float]
    model_meeting_s: float


def validate(ranks: int, costs: MeetingCosts, local: Mapping[str, float]) -> Validated:
    """Run both. The model gets the real ranks' times of writing, so that the meeting is judged alone."""
    with s3_server() as server:
        (server.root / "scale").mkdir(exist_ok=True)
        rounds = run_ranks(ranks, _save, dict(server.storage_options), timeout_s=60.0)
    real = []
    for number in range(1, _ROUNDS):  # the first connects
        written = [each[number][0] for each in rounds]
        real.append((max(written), max(each[number][1] for each in rounds) - max(written), written))
    job = Job(ranks, _FILE_BYTES, names=_NAMES, replaces=False)
    here = replace(costs, round_trip_s=0.0)
    objects = ObjectCosts(
        latency_s=local["put_s"],
        stream_bps=local["stream_bps"] / ranks,
        slow_node_share=0.0,
        start_spread_s=0.0,
        stream_sigma=0.1,
    )
    modelled = [
        (met := meet(job, Layout(), here, objects, written, seed)).departed_s - met.arrived_s
        for seed, (_, _, written) in enumerate(real)
    ]
    quartiles = statistics.quantiles([each[1] for each in real], n=4)
    return Validated(
        ranks,
        statistics.median(each[0] for each in real),
        statistics.median(max(write_data(job, Layout(), objects, seed).done_s) for seed in range(_ROUNDS)),
        (quartiles[0], quartiles[1], quartiles[2]),
        statistics.median(modelled),
    )


def _save(rank: int, options: dict[str, str]) -> list[tuple[float, float]]:
    """Return, for each round, when this rank has written and when it has departed; s since they began together."""
    import torch.distributed as dist

    store = open_store("s3://scale/run", options)
    data = Content.of(os.urandom(_FILE_BYTES))
    mine = os.urandom(_NAMES * _ITEM_BYTES)
    metadata = Content.of(os.urandom(_NAMES * _ITEM_BYTES * dist.get_world_size()))
    manifest = Content.of(b"x" * 250 * dist.get_world_size())
    meeting = open_rendezvous("scale")
    times = []
    for number in range(_ROUNDS):
        dist.barrier()
        begun = time.perf_counter()
        with meeting.round(f"round {number}") as round_:
            store.put(f"data{rank}", data)
            written = time.perf_counter() - begun
            results: Any = round_.arrive(mine)
            if results is not None:
                for name, content in (("next", manifest), ("metadata", metadata), ("manifest", manifest)):
                    store.put(name, content)
                store.delete("next")
                round_.decide(b"committed")
            round_.decision()
        times.append((written, time.perf_counter() - begun))
    dist.barrier()
    meeting.close()
    return times
