"""What writes a checkpoint best, a thread or a process: for each kind of store, the training beside it and the speed.

The training is launch-bound: a step is 2,000 tiny torch operations, the kind that suffers most when something else
holds the GIL. While one captured piece of memory is put again and again, steps are timed; each round measures every
store with every writer once, in an order that rotates, with quiet steps right before. The servers are processes of
their own on the same machine and take their share of its cores. Asserts nothing.

    python benchmarks/writer_choice.py --megabytes 128 --rounds 3 --json writer_choice.json

S3 goes through obstore, and through s3fs in an environment without obstore. SFTP needs paramiko.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil
import torch

from asynchooks import testing
from asynchooks._cli.demo._environment import describe_environment, environment_line
from asynchooks.checkpoint import Content, Store, open_store
from asynchooks.checkpoint._capture._staging import shared_staging
from asynchooks.checkpoint._storage import WriterChoice
from asynchooks.checkpoint._storage._process import ProcessStore

OPERATIONS = 2_000
WRITERS: tuple[WriterChoice, ...] = ("thread", "process")


@dataclass(frozen=True)
class Measured:
    """One store with one writer, in one round."""

    quiet_ms: float
    step_ms: float
    p99_ms: float
    mb_per_s: float
    cpu_s_per_gb: float

    @property
    def slowdown(self) -> float:
        return self.step_ms / self.quiet_ms


def step() -> Callable[[], None]:
    """A training step that is bound by launching operations."""
    x = torch.zeros(8)

    def run() -> None:
        for _ in range(OPERATIONS):
            x.add_(1.0)

    return run


def timed(run: Callable[[], None], until: Callable[[int], bool]) -> list[float]:
    """Milliseconds of each step, until told that it is enough."""
    times: list[float] = []
    while not until(len(times)):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def measure(store: Store, content: Content, *, puts: int) -> Measured:
    run = step()
    store.put("warm.pth", content)
    quiet = timed(run, lambda done: done >= 50)
    mine = psutil.Process()
    helper = store.writer_pid if isinstance(store, ProcessStore) else None
    processes = [mine, *([psutil.Process(helper)] if helper else [])]
    waited: list[float] = []

    def put() -> None:
        for _ in range(puts):
            start = time.perf_counter()
            store.put("put.pth", content)
            waited.append(time.perf_counter() - start)

    def cpu_s() -> float:
        """Of the processes, without the training thread."""
        return sum(sum(each.cpu_times()[:2]) for each in processes) - time.thread_time()

    before = cpu_s()
    thread = threading.Thread(target=put)
    thread.start()
    times = timed(run, lambda done: done >= 3 and not thread.is_alive())
    thread.join()
    used_s = cpu_s() - before
    return Measured(
        quiet_ms=statistics.median(quiet),
        step_ms=statistics.fmean(times),
        p99_ms=sorted(times)[int(len(times) * 0.99)],
        mb_per_s=content.nbytes / 1e6 / statistics.median(waited),
        cpu_s_per_gb=max(0.0, used_s) / (puts * content.nbytes / 1e9),
    )


@contextlib.contextmanager
def stores() -> Iterator[dict[str, Callable[[WriterChoice], Store | None]]]:
    """How to open each kind; None where a writer cannot serve it."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found: dict[str, Callable[[WriterChoice], Store | None]] = {
            "local disk": lambda writer: open_store(folder / "local", writer=writer),
            "memory://": lambda writer: open_store(f"memory://{folder}") if writer == "thread" else None,
        }
        server = stack.enter_context(testing.s3_server())
        url, options = f"{server.make_bucket('bench')}/run", server.storage_options
        client = next((name for name in ("obstore", "s3fs") if find_spec(name)), None)
        if client is not None:
            found[f"S3 ({client})"] = lambda writer: open_store(url, options, writer=writer)
        if find_spec("paramiko"):
            sftp = stack.enter_context(testing.sftp_server())
            found["SFTP (paramiko)"] = lambda writer: open_store(
                f"{sftp.url}run", sftp.storage_options, writer=writer
            )
        yield found


def run_round(
    found: dict[str, Callable[[WriterChoice], Store | None]], content: Content, puts: int, number: int
) -> Iterator[tuple[str, Measured]]:
    """Every store with every writer, starting with another one in each round."""
    cases = [(name, writer) for name in found for writer in WRITERS]
    for name, writer in cases[number % len(cases) :] + cases[: number % len(cases)]:
        store = found[name](writer)
        if store is None:
            continue
        yield f"{name}, {writer}", measure(store, content, puts=puts)
        if isinstance(store, ProcessStore):
            store.close()


def table(rounds: dict[str, list[Measured]]) -> str:
    """One row per store and writer: medians over the rounds."""
    lines = [
        "| store, writer | step time x | p99 of a step, ms | MB/s | CPU s per GB |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, measured in sorted(rounds.items()):
        slowdown, p99, speed, cpu = (
            statistics.median(values)
            for values in zip(
                *((each.slowdown, each.p99_ms, each.mb_per_s, each.cpu_s_per_gb) for each in measured),
                strict=True,
            )
        )
        lines.append(f"| {name} | {slowdown:.2f} | {p99:.0f} | {speed:.0f} | {cpu:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=128, help="length of each file")
    parser.add_argument("--puts", type=int, default=3, help="files per store, writer and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write everything that was measured here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    memory = shared_staging().lease(options.megabytes * 10**6)
    memory[:] = 1
    content = Content.of(memory.data)
    rounds: dict[str, list[Measured]] = {}
    with stores() as found:
        for number in range(options.rounds):
            for name, measured in run_round(found, content, options.puts, number):
                rounds.setdefault(name, []).append(measured)
    environment = describe_environment("torch", "asynchooks", "fsspec", "obstore", "s3fs", "paramiko")
    quiet_ms = statistics.median(each.quiet_ms for measured in rounds.values() for each in measured)
    print(f"{environment_line(environment)}; a quiet step takes {quiet_ms:.1f} ms\n")
    print(table(rounds))
    if options.json is not None:
        results = {name: [asdict(each) for each in measured] for name, measured in rounds.items()}
        options.json.write_text(json.dumps({"environment": environment, "results": results}, indent=2))


if __name__ == "__main__":
    main()
