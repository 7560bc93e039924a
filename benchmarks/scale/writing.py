"""The data of a save on its way to an object store: when each rank has written its file.

A request is refused (503 SlowDown) when its partition has taken as many as it takes, and is tried again after a
backoff, until its retries are used up: then the save has failed.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import simpy

from scale.assumptions import Job, Layout, ObjectCosts

__all__ = ["ObjectStoreModel", "Written", "write_data"]

Steps = Generator[Any, Any, Any]


class ObjectStoreModel:
    """Takes requests; partitions are told apart by number."""

    def __init__(self, env: Any, costs: ObjectCosts, partitions: int, rng: random.Random) -> None:
        self.env = env
        self.costs = costs
        self.rng = rng
        self._full_s = [
            -1.0
        ] * partitions  # when a partition's allowance would be whole again, less one second
        self.taken = 0
        self.refused = 0
        self.nbytes = 0
        self.per_second: dict[int, int] = {}

    def request(self, partition: int, nbytes: int, slowness: float = 1.0, bps: float | None = None) -> Steps:
        """One request, with its retries; returns whether it was taken."""
        env, costs, rng = self.env, self.costs, self.rng
        begun_s, pause_s = env.now, costs.backoff_s
        for attempt in range(costs.retries + 1):
            if self._admits(partition):
                stream = min(costs.stream_bps * rng.lognormvariate(0.0, costs.stream_sigma), bps or 1e18)
                latency_s = costs.latency_s * rng.lognormvariate(0.0, costs.latency_sigma)
                yield env.timeout((latency_s + nbytes / stream) * slowness)
                self.nbytes += nbytes
                return True
            self.refused += 1
            pause_s = min(costs.most_backoff_s, rng.uniform(costs.backoff_s, pause_s * 2))
            if attempt == costs.retries or env.now + pause_s - begun_s > costs.retry_limit_s:
                break
            yield env.timeout(costs.refusal_s + pause_s)
        return False

    def _admits(self, partition: int) -> bool:
        now_s = self.env.now
        full_s = max(self._full_s[partition], now_s - 1.0)
        if full_s + 1.0 / self.costs.writes_per_s > now_s:
            return False
        self._full_s[partition] = full_s + 1.0 / self.costs.writes_per_s
        self.taken += 1
        self.per_second[int(now_s)] = self.per_second.get(int(now_s), 0) + 1
        return True


@dataclass(slots=True)
class Written:
    """When each writer was done (s), what the store saw, and how many writers have failed."""

    done_s: list[float]
    requests: int
    refused: int
    failed: int
    nbytes: int
    peak_per_s: int
    slow_nodes: set[int] = field(default_factory=set)


def write_data(job: Job, layout: Layout, costs: ObjectCosts, seed: int) -> Written:
    """Simulate the data phase of one save."""
    rng = random.Random(seed)
    env = simpy.Environment()
    store = ObjectStoreModel(env, costs, layout.partitions, rng)
    writers = max(1, job.ranks // layout.ranks_per_file)
    nodes = -(-job.ranks // costs.ranks_per_node)
    slow = {node for node in range(nodes) if rng.random() < costs.slow_node_share}
    done_s = [0.0] * writers
    failed: set[int] = set()
    nbytes = job.rank_bytes * (job.ranks // writers)
    per_node = max(1, costs.ranks_per_node // layout.ranks_per_file)
    bps = costs.node_bps / per_node / layout.parts_in_flight

    interval_s = writers / (0.9 * costs.writes_per_s * layout.partitions) if layout.paced else 0.0
    next_s = [rng.uniform(0.0, interval_s) for _ in range(writers)]

    def send(writer: int, partition: int, size: int, slowness: float, bps: float | None) -> Steps:
        """One request in its turn; an upload of which one part has failed is over."""
        turn_s = max(env.now, next_s[writer])
        next_s[writer] = turn_s + interval_s
        if turn_s > env.now:
            yield env.timeout(turn_s - env.now)
        if not (yield from store.request(partition, size, slowness, bps)):
            failed.add(writer)

    def parts(writer: int, partition: int, slowness: float, waiting: list[int]) -> Steps:
        while waiting and writer not in failed:
            yield from send(writer, partition, waiting.pop(), slowness, bps)

    def write(writer: int) -> Steps:
        requests = 2 + -(-nbytes // layout.part_bytes)
        turn_s = (
            writer * requests / (0.9 * costs.writes_per_s * layout.partitions) if layout.in_turns else 0.0
        )
        yield env.timeout(turn_s + abs(rng.gauss(0.0, costs.start_spread_s)))
        node = writer * layout.ranks_per_file // costs.ranks_per_node
        slowness = costs.slow_node_factor if node in slow else 1.0
        partition = writer % layout.partitions
        whole, rest = divmod(nbytes, layout.part_bytes)
        waiting = [layout.part_bytes] * whole + ([rest] if rest else [])
        if len(waiting) == 1:
            yield from send(writer, partition, waiting[0], slowness, bps)
        else:
            yield from send(writer, partition, 0, slowness, None)
            lanes = min(layout.parts_in_flight, len(waiting))
            yield env.all_of([env.process(parts(writer, partition, slowness, waiting)) for _ in range(lanes)])
            if writer not in failed:
                yield from send(writer, partition, 0, slowness, None)
        done_s[writer] = env.now

    for writer in range(writers):
        env.process(write(writer))
    env.run()
    peak = max(store.per_second.values(), default=0)
    return Written(done_s, store.taken, store.refused, len(failed), store.nbytes, peak, slow)
