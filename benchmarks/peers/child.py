"""One case, measured in a process of its own."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from peers.case import Case, Outcome, SaveResult
from peers.contender import Contender, Place
from peers.contenders import contender_class
from peers.processes import tree_cpu_s
from peers.verifying import verdict
from peers.workload import Step, Training, digests

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["measure"]

_LEAST_STEPS = 25


@dataclass(frozen=True, slots=True)
class _Flight:
    """One save as it went, not yet judged."""

    step: int
    start: float
    exposed_s: float
    claimed_s: float
    end: float
    added_fsync_s: float
    cpu_s: float
    steps: list[float]
    parts: dict[str, float]
    verdict: str


def measure(case: Case, load: Callable[[int], dict[str, str] | str | None]) -> Iterator[Outcome]:
    """Yield what is known after each save, so that a contender that dies or hangs leaves what it had done.

    Args:
        case: what to do.
        load: returns digests of the tensors that were saved at a step, as `verifying.verdict` takes them.
    """
    torch.set_num_threads(1)
    training = Training(case.size_mb, case.workload, case.device)
    place = Place(case.place, case.url, case.options)
    contender = contender_class(case.peer)(place)
    lulls = [_quiet(training, Contender(place), case.quiet_s)]  # also warms up
    lulls[0].clear()
    baseline_at = time.perf_counter()
    contender.open(training.state)
    setup_s = time.perf_counter() - baseline_at
    flights: list[_Flight] = []
    for _ in range(case.saves):
        lulls[-1] += _quiet(training, contender, case.quiet_s / 2)
        flights.append(_fly(training, contender, load))
        _forget(contender, flights[-1].step)
        lulls.append(_quiet(training, contender, case.quiet_s / 2))
        saves = [
            _judge(flight, [*before, *after])
            for flight, before, after in zip(flights, lulls, lulls[1:], strict=False)
        ]
        yield Outcome(training.nbytes, setup_s, baseline_at, saves)
    contender.close()


def _quiet(training: Training, contender: Contender, quiet_s: float) -> list[float]:
    """Step without a save in flight."""
    steps: list[float] = []
    end = time.perf_counter() + quiet_s
    while len(steps) < _LEAST_STEPS or time.perf_counter() < end:
        steps.append(_step(training, contender).step_s)
    return steps


def _step(training: Training, contender: Contender) -> Step:
    step = training.step(contender.updating())
    contender.after_step()
    return step


def _fly(
    training: Training, contender: Contender, load: Callable[[int], dict[str, str] | str | None]
) -> _Flight:
    expected = digests(training.state)
    number = training.iteration
    steps: list[Step] = []
    cpu_s = tree_cpu_s()
    start = time.perf_counter()
    pending = contender.save(training.state, number)
    exposed_s = time.perf_counter() - start
    while not pending.ask():
        steps.append(_step(training, contender))
    end = time.perf_counter()
    cpu_s = tree_cpu_s() - cpu_s - sum(step.cpu_s for step in steps)
    added_fsync_s = _sync(contender, number)
    error = pending.error
    return _Flight(
        step=number,
        start=start,
        exposed_s=exposed_s + sum(step.waited_s for step in steps),
        claimed_s=(pending.claimed_at or end) - start,
        end=end,
        added_fsync_s=added_fsync_s,
        cpu_s=cpu_s,
        steps=[step.step_s for step in steps],
        parts=pending.parts,
        verdict=f"failed: {type(error).__name__}: {str(error)[:300]}"
        if error
        else verdict(expected, load(number)),
    )


def _sync(contender: Contender, number: int) -> float:
    """Sync what a contender left in the page cache; return how long that took."""
    if contender.syncs or contender.place.is_remote:
        return 0.0
    start = time.perf_counter()
    for path in contender.files(number):
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    return time.perf_counter() - start


def _judge(flight: _Flight, quiet: Sequence[float]) -> SaveResult:
    median = statistics.median(quiet)
    ratios = sorted(step / median for step in flight.steps)
    many = len(ratios)
    return SaveResult(
        start=flight.start,
        end=flight.end,
        exposed_s=flight.exposed_s,
        claimed_s=flight.claimed_s,
        durable_s=flight.claimed_s + flight.added_fsync_s,
        inflation_s=sum(flight.steps) - many * median if many else None,
        noise_s=many * (statistics.fmean(quiet) - median),
        steps=many,
        quiet_step_s=median,
        ratio_p50=statistics.median(ratios) if many else None,
        ratio_p99=ratios[min(many - 1, int(many * 0.99))] if many else None,
        cpu_s=flight.cpu_s,
        parts=flight.parts,
        verdict=flight.verdict,
    )


def _forget(contender: Contender, number: int) -> None:
    """Delete a checkpoint that was judged: no contender prunes here, and the next one finds the same room."""
    if contender.place.is_remote:
        return
    path = Path(contender.place.at(contender.name_of(number)))
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
