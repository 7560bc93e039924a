"""What each rank does in a scene: savers take turns, each save beside steps, judged against quiet ones."""

from __future__ import annotations

import os
import random
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from peers.contender import Pending
from peers.processes import tree_cpu_s
from peers.questions import Desk

from sharded_peers.case import SaveResult, Scene, Shard
from sharded_peers.savers import saver_class
from sharded_peers.saving import Saver
from sharded_peers.training import Training

__all__ = ["take_turns"]

_LEAST_STEPS = 12
_FLIGHT_LIMIT_S = 90.0


def take_turns(rank: int, fields: dict[str, Any], folder: str, seed: int) -> None:
    """Run a scene. The first rank leaves all results so far at the desk after each save.

    Args:
        rank: this one.
        fields: of the scene.
        folder: of the desk, where the parent reads checkpoints back.
        seed: of the order of turns.
    """
    scene = Scene(**fields)
    log = os.open(f"{folder}/rank_{rank}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 2)  # DCP's processes say on standard error all that they do
    desk = Desk(Path(folder))
    training = Training(scene.kind, scene.size_mb, scene.layers)
    quiet_steps = _calibrate(training, scene.quiet_s)
    savers: dict[str, Saver] = {}
    for name in scene.names:
        savers[name] = saver_class(name)(scene)
        savers[name].open(training.state())
    results: list[dict[str, Any]] = []
    order = random.Random(seed)
    for number in range(scene.saves + 1):
        names = list(savers)
        order.shuffle(names)
        for name in names:
            result = _save_once(rank, name, number, savers[name], training, quiet_steps, desk)
            if result.verdict.startswith("failed"):
                savers.pop(name)  # what it left undone may hang its next save
            results.append(asdict(result))
            if rank == 0:
                desk.leave("results", results)
    for saver in savers.values():
        saver.close()


def _save_once(
    rank: int, name: str, number: int, saver: Saver, training: Training, quiet_steps: int, desk: Desk
) -> SaveResult:
    """One save of one saver; the same answer on every rank."""
    quiet = [_step(training, saver) for _ in range(quiet_steps)]
    shards = training.shards()
    state, step = training.state(), training.iteration
    dist.barrier()
    cpu_s, start = tree_cpu_s(), time.perf_counter()
    error = ""
    try:
        pending = saver.save(state, step)
    except Exception as raised:  # noqa: BLE001 - a saver that fails is a result
        error, pending = repr(raised), Pending()
        pending.end(raised)
    exposed_s = time.perf_counter() - start
    dist.barrier()  # or one rank's wait would be the other's slow step
    steps: list[float] = []
    waited_s = step_cpu_s = 0.0
    while True:
        done = training.step(pending=not pending.ask(), before_update=saver.before_update)
        if not steps:
            dist.barrier()  # as above, for the wait before the first update
        waited_s += done.waited_s
        step_cpu_s += done.cpu_s
        if not done.pending:
            break
        steps.append(done.step_s)
        if time.perf_counter() - start > _FLIGHT_LIMIT_S:
            raise TimeoutError(f"{name}: not saved after {_FLIGHT_LIMIT_S:g} s")
    cpu_s = tree_cpu_s() - cpu_s - step_cpu_s
    if pending.error is not None:
        error = repr(pending.error)
    quiet += [_step(training, saver) for _ in range(quiet_steps)]
    median = statistics.median(quiet)
    mine = {
        "start": start,
        "claimed": pending.claimed_at or start,
        "exposed_s": exposed_s + waited_s,
        "inflation_s": sum(steps) - len(steps) * median,
        "noise_s": len(steps) * (statistics.fmean(quiet) - median),
        "cpu_s": cpu_s,
        "quiet_step_s": median,
        "parts": pending.parts,
        "shards": shards,
        "error": error,
    }
    return _together(rank, name, number, step, len(steps), mine, desk)


def _together(
    rank: int, name: str, number: int, step: int, steps: int, mine: dict[str, Any], desk: Desk
) -> SaveResult:
    every: list[dict[str, Any]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(every, mine)
    answer: list[Any] = [None]
    if rank == 0:
        shards: list[list[Shard]] = [each["shards"] for each in every]
        answer = [desk.ask({"step": step, "shards": shards, "nothing": name == "none"})]
    dist.broadcast_object_list(answer)
    errors = [f"rank {number} {each['error']}" for number, each in enumerate(every) if each["error"]]
    parts = sorted({part for each in every for part in each["parts"]})
    return SaveResult(
        name=name,
        number=number,
        exposed_s=max(each["exposed_s"] for each in every),
        inflation_s=max(each["inflation_s"] for each in every) if steps else None,
        noise_s=max(each["noise_s"] for each in every),
        durable_s=max(each["claimed"] for each in every) - min(each["start"] for each in every),
        cpu_s=sum(each["cpu_s"] for each in every),
        steps=steps,
        quiet_step_s=max(each["quiet_step_s"] for each in every),
        parts={part: max(each["parts"].get(part, 0.0) for each in every) for part in parts},
        rank_bytes=answer[0]["rank_bytes"],
        other_bytes=answer[0]["other_bytes"],
        verdict=f"failed: {errors[0][:300]}" if errors else answer[0]["verdict"],
    )


def _step(training: Training, saver: Saver) -> float:
    return training.step(pending=False, before_update=saver.before_update).step_s


def _calibrate(training: Training, quiet_s: float) -> int:
    """Return how many steps take so long, the same on every rank."""
    took = [training.step(pending=False, before_update=lambda: None).step_s for _ in range(20)]
    count = torch.tensor([max(_LEAST_STEPS, int(quiet_s / statistics.median(took)))])
    dist.broadcast(count, 0)
    return int(count)
