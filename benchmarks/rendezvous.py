"""What a round of the rendezvous and a vote cost on this machine: the numbers of `asynchooks/distributed/README.md`.

Ranks are processes here, and meet in a store in this process. A round is timed from a barrier on, so that nobody is
late: what is left is the telling, and the pauses between two looks.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch.distributed as dist

from asynchooks.distributed import Votes, control_group, open_rendezvous
from asynchooks.testing import run_ranks

_SIZES = {"1 KiB": 2**10, "1 MiB": 2**20, "16 MiB": 2**24}


def _rounds(_rank: int, nbytes: int, rounds: int) -> tuple[float, float, float]:
    """Milliseconds of a round: median and 95th percentile; and of this process's CPU."""
    meeting = open_rendezvous("costs")
    mine = os.urandom(nbytes)
    wall_s, cpu_s = [], []
    for number in range(rounds):
        dist.barrier()
        begun_s, cpu_begun_s = time.perf_counter(), time.process_time()
        with meeting.round(f"round {number}") as round_:
            if round_.arrive(mine) is not None:
                round_.decide(b"committed")
            round_.decision()
        wall_s.append(time.perf_counter() - begun_s)
        cpu_s.append(time.process_time() - cpu_begun_s)
    dist.barrier()
    meeting.close()
    return (
        statistics.median(wall_s) * 1e3,
        sorted(wall_s)[rounds * 95 // 100] * 1e3,
        statistics.median(cpu_s) * 1e3,
    )


def _votes(_rank: int) -> float:
    """Microseconds of the training thread for a vote, median."""
    votes = Votes(control_group())
    costs_s = []
    for _ in range(500):
        begun_s = time.perf_counter()
        votes.cast(0)
        costs_s.append(time.perf_counter() - begun_s)
        time.sleep(0.002)  # the step
    votes.settle()
    return statistics.median(costs_s) * 1e6


def main() -> None:
    """Measure, print, and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    options = parser.parse_args()
    results: dict[str, Any] = {"load": os.getloadavg()[0], "cores": os.cpu_count(), "rounds": [], "votes": {}}
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, load {results['load']:.1f} on {results['cores']} cores")
    print("ranks  each brings  round ms  95 %  CPU ms first  CPU ms last")
    for ranks in (2, 4):
        for size, nbytes in _SIZES.items():
            first, *_, last = run_ranks(ranks, _rounds, nbytes, 100 if nbytes < _SIZES["16 MiB"] else 20)
            median_ms, late_ms, first_ms = first
            last_ms = last[2]
            print(
                f"{ranks:5}  {size:>11}  {median_ms:8.1f}  {late_ms:4.0f}  {first_ms:12.1f}  {last_ms:11.1f}",
                flush=True,
            )
            results["rounds"].append([ranks, nbytes, median_ms, late_ms, first_ms, last_ms])
    for ranks in (2, 4):
        results["votes"][ranks] = max(run_ranks(ranks, _votes))
        print(f"a vote of {ranks} ranks: {results['votes'][ranks]:.0f} us", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
