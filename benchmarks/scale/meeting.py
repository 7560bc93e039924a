"""The ranks meet through one TCPStore, the first one commits, all depart: as `Rendezvous` does it.

The server is one thread: operations queue, and each takes its time. Arrival: a tree in heap order; who waits asks
again and again, in pauses that grow. Heartbeats and the looks at them are a constant share of the server's time.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import simpy

from scale.assumptions import Job, Layout, MeetingCosts, ObjectCosts
from scale.writing import ObjectStoreModel

__all__ = ["Met", "meet"]

Steps = Generator[Any, Any, Any]
_LEAST_POLL_S, _POLL_GROWTH, _MOST_POLL_S = 0.0005, 1.5, 0.1


@dataclass(frozen=True, slots=True)
class Met:
    """What came of a round. Seconds count from the begin of the save."""

    arrived_s: float
    assembled_s: float
    committed_s: float
    deleted_s: float
    departed_s: float
    operations: int
    server_bytes: int
    busy_s: float
    busiest_second: float
    longest_queue_s: float
    beats_share: float
    metadata_bytes: int
    result_bytes: int


class _Server:
    def __init__(self, env: Any, costs: MeetingCosts, share: float) -> None:
        self.env = env
        self.costs = costs
        self._share = share
        self._polled = 0.0  # of its time, by those that ask at their longest pause
        self._asked_per_s = 0.0
        self._since_s = 0.0
        self._free_s = 0.0
        self._operations = 0.0
        self.nbytes = 0
        self.busy_s = 0.0
        self.longest_queue_s = 0.0
        self.per_second: dict[int, float] = {}
        self.most_polled = 0.0

    def poll(self, service_s: float, operations: int, every_s: float, sign: int) -> None:
        """One more, or one fewer, that asks for good: a share of the server's time and no single events."""
        now_s = self.env.now
        self.busy_s += min(1.0, self._polled) * (now_s - self._since_s)
        self._operations += self._asked_per_s / max(1.0, self._polled) * (now_s - self._since_s)
        self._since_s = now_s
        self._polled = max(0.0, self._polled + sign * service_s / every_s)
        self._asked_per_s = max(0.0, self._asked_per_s + sign * operations / every_s)
        self.most_polled = max(self.most_polled, self._polled)

    @property
    def operations(self) -> int:
        """Served so far, rounded."""
        return round(self._operations)

    def serve(self, service_s: float, operations: int = 1, nbytes: int = 0) -> float:
        """Queue; returns the delay until it is answered."""
        now_s = self.env.now
        begin_s = max(now_s, self._free_s)
        self.longest_queue_s = max(self.longest_queue_s, begin_s - now_s)
        self._free_s = begin_s + service_s / max(0.05, 1.0 - self._share - self._polled)
        self.busy_s += service_s
        self._operations += operations
        self.nbytes += nbytes
        second = int(begin_s)
        self.per_second[second] = self.per_second.get(second, 0.0) + service_s
        return float(self._free_s - now_s)


def meet(
    job: Job, layout: Layout, costs: MeetingCosts, objects: ObjectCosts, done_s: list[float], seed: int
) -> Met:
    """Simulate a round: `done_s` says when each writer's data is durable."""
    rng = random.Random(seed)
    env = simpy.Environment()
    store = ObjectStoreModel(env, objects, layout.partitions, rng)
    ranks, fan_in = job.ranks, layout.fan_in
    share = _beats_share(job, costs)
    server = _Server(env, costs, share)
    each_bytes = job.file_bytes if layout.compact else job.file_bytes + job.items * costs.item_bytes // ranks
    carried = _carried(ranks, fan_in)
    arrived = [False] * ranks
    missing = [len(_children(rank, fan_in, ranks)) for rank in range(ranks)]
    questions = layout.questions
    most_poll_s = max(_MOST_POLL_S, ranks / layout.checks_per_s)
    parents_poll_s = _MOST_POLL_S if layout.eager_parents else most_poll_s
    least_poll_s = most_poll_s / 10 if questions == 1 else _LEAST_POLL_S
    at: dict[str, float] = {}
    all_here = [env.event() for _ in range(ranks)]
    decided, all_left = env.event(), env.event()
    left: list[int] = []

    def ask(service_s: float, operations: int = 1, nbytes: int = 0) -> Any:
        return env.timeout(server.serve(service_s, operations, nbytes) + costs.round_trip_s)

    def wait(sign: Any, keys: int, most_poll_s: float = most_poll_s) -> Steps:
        pause_s = least_poll_s * rng.uniform(0.9, 1.1)
        service_s = costs.check_s * questions + costs.check_key_s * (keys - 1)
        while True:
            yield ask(service_s, questions)
            if sign.triggered:
                return
            if pause_s >= most_poll_s:
                server.poll(service_s, questions, most_poll_s, 1)
                yield sign
                server.poll(service_s, questions, most_poll_s, -1)
                yield env.timeout(rng.uniform(0.0, most_poll_s))
            else:
                yield env.timeout(pause_s)
                pause_s = min(pause_s * _POLL_GROWTH, most_poll_s)

    def tell(rank: int, nbytes: int) -> Steps:
        yield env.timeout(server.serve(costs.set_s + costs.set_byte_s * nbytes, 1, nbytes))
        arrived[rank] = True
        parent = (rank - 1) // fan_in
        missing[parent] -= 1
        if not missing[parent]:
            all_here[parent].succeed()

    def rank_(rank: int) -> Steps:
        yield env.timeout(done_s[rank // layout.ranks_per_file % len(done_s)])
        children = _children(rank, fan_in, ranks)
        if children:
            yield from wait(all_here[rank], len(children), parents_poll_s)
            for child in children:
                nbytes = carried[child] * each_bytes
                yield ask(costs.get_s + costs.get_byte_s * nbytes, 1, nbytes)
                yield ask(costs.add_s)  # delete_key
        if rank == 0:
            at["arrived"] = env.now
            yield from commit()
            yield ask(costs.set_s + costs.add_s, 2)
            decided.succeed()
        else:
            env.process(tell(rank, carried[rank] * each_bytes))
            yield from wait(decided, 1)
            yield ask(costs.get_s + costs.check_s, 2, job.file_bytes)
            if layout.deletes == 0 and job.replaces:
                yield from store.request(rank % layout.partitions, 0)
                at["deleted"] = max(at.get("deleted", 0.0), env.now)
        yield ask(costs.add_s)
        left.append(rank)
        if len(left) == ranks:
            all_left.succeed()
        if rank == 0:
            yield from wait(all_left, 1)
            at["departed"] = env.now

    def commit() -> Steps:
        metadata = job.items * costs.item_bytes
        assembling_s = metadata * costs.cached_byte_s if layout.compact else job.items * costs.item_s
        yield env.timeout(assembling_s)
        at["assembled"] = env.now
        yield from store.request(0, job.file_bytes * ranks // layout.ranks_per_file)
        parts = max(1, -(-metadata // layout.part_bytes))
        lanes = layout.parts_in_flight
        if parts > 1:
            yield from store.request(0, 0)
        for _ in range(-(-parts // lanes)):
            size = min(layout.part_bytes, metadata)
            yield env.all_of([env.process(store.request(0, size)) for _ in range(min(lanes, parts))])
        if parts > 1:
            yield from store.request(0, 0)
        yield from store.request(0, job.file_bytes * ranks // layout.ranks_per_file)
        at["committed"] = env.now
        yield from store.request(0, 0)  # the next manifest goes
        if layout.deletes and job.replaces:
            waiting = list(range(ranks // layout.ranks_per_file))

            def delete() -> Steps:
                while waiting:
                    yield from store.request(waiting.pop() % layout.partitions, 0)

            yield env.all_of([env.process(delete()) for _ in range(layout.deletes)])
        at["deleted"] = env.now

    for number in range(ranks):
        env.process(rank_(number))
    env.run()
    return Met(
        at["arrived"],
        at["assembled"],
        at["committed"],
        at["deleted"],
        at["departed"],
        server.operations,
        server.nbytes,
        server.busy_s,
        min(1.0, max(*server.per_second.values(), server.most_polled)),
        server.longest_queue_s,
        share,
        job.items * costs.item_bytes,
        each_bytes,
    )


def _children(rank: int, fan_in: int, ranks: int) -> range:
    first = rank * fan_in + 1
    return range(min(first, ranks), min(first + fan_in, ranks))


def _carried(ranks: int, fan_in: int) -> list[int]:
    """How many ranks' results each rank hands on."""
    carried = [1] * ranks
    for rank in range(ranks - 1, 0, -1):
        carried[(rank - 1) // fan_in] += carried[rank]
    return carried


def _beats_share(job: Job, costs: MeetingCosts) -> float:
    """Of the server's time: every rank beats ten times per deadline, and is looked at as often."""
    per_beat_s = costs.set_s + costs.check_key_s + costs.get_key_s
    return job.ranks / (job.deadline_s / 10) * per_beat_s
