"""What the six default hooks cost per iteration when nothing is due: ours beside MMEngine's own.

Real runners, real hooks, real message hubs; each fires the points before and after an iteration as its training loop
does. The histories of the four scalars that the default hooks keep (lr, data_time, time, loss) are fresh, or as long
as a run's after so many iterations. Measured in one process, in rounds, in an order that rotates; ratios are taken
inside each round. Beside it stands what the histories add to every checkpoint. Asserts nothing.

    python benchmarks/default_hooks.py --json default_hooks.json
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import logging
import statistics
import tempfile
import time
import timeit
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from readme_section import write_section

from asynchooks._cli.demo._environment import describe_environment, environment_line
from asynchooks.runner import MessageHub, Runner

OURS, THEIRS = "asynchooks", "MMEngine"
SCALARS = ("train/lr", "train/data_time", "train/time", "train/loss")
HISTORIES = (0, 10_000, 100_000, 1_000_000)
BATCHES = 1_000
NOT_DUE = 3  # of batches, counted from 0: no log line and no checkpoint follows it


class Net(torch.nn.Module):
    """Takes a training step in both runners; none is taken here."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, torch.Tensor]:
        raise NotImplementedError


@dataclass
class Contender:
    """A runner whose training has begun.

    Attributes:
        runner: its ``message_hub`` is replaced by the one that is measured.
        statement: fires both points of an iteration.
        make_hub: returns a hub whose scalars have so many values.
        names: the names in the statement.
        hubs: a hub for each history.
    """

    runner: Any
    statement: str
    make_hub: Callable[[int], Any]
    names: dict[str, Any] = field(default_factory=dict)
    hubs: dict[int, Any] = field(default_factory=dict)

    def sample(self, history: int, calls: int) -> float:
        """Return µs per iteration. A fresh history is made anew; a long one grows by what is measured."""
        if not history:
            self.hubs[0] = self.make_hub(0)
        self.runner.message_hub = self.hubs[history]
        exec(self.statement, self.names)  # makes the scalars
        return timeit.timeit(self.statement, globals=self.names, number=calls) / calls * 1e6


def arguments(work_dir: Path) -> dict[str, Any]:
    """Return what both runners are given."""
    data = torch.utils.data.TensorDataset(torch.ones(BATCHES, 2))
    return {
        "model": Net(),
        "work_dir": str(work_dir),
        "train_dataloader": torch.utils.data.DataLoader(data, batch_size=1),
        "train_cfg": {"by_epoch": True, "max_epochs": 2},
        "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
        "param_scheduler": {"type": "MultiStepLR", "milestones": [1], "by_epoch": True},
        "randomness": {"seed": 0},
        "log_level": "ERROR",
    }


def asynchooks_contender(work_dir: Path, stack: contextlib.ExitStack) -> Contender:
    runner = Runner(**arguments(work_dir))
    assert runner.train_loop.iter == 0
    executor: Any = stack.enter_context(runner.executor)
    for point in ("before_run", "before_train", "before_train_epoch"):
        executor.fire(point, runner)
    statement = (
        "fire('before_train_iter', runner, batch_idx=index, data_batch=batch); "
        "fire('after_train_iter', runner, batch_idx=index, data_batch=batch, outputs=outputs)"
    )

    def make_hub(history: int) -> MessageHub:
        hub = MessageHub()
        for value in range(history):
            for key in SCALARS:
                hub.update_scalar(key, float(value))
        return hub

    return Contender(runner, statement, make_hub, {"fire": executor.fire})


def mmengine_contender(work_dir: Path, stack: contextlib.ExitStack) -> Contender:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmengine.logging import HistoryBuffer
        from mmengine.logging import MessageHub as TheirHub
        from mmengine.runner import Runner as TheirRunner

        runner = TheirRunner(**arguments(work_dir), experiment_name="default_hooks")
    stack.callback(lambda: [handler.close() for handler in runner.logger.handlers])
    runner._train_loop = runner.build_train_loop(runner._train_loop)  # noqa: SLF001 - as its train() does
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    for point in ("before_run", "before_train", "before_train_epoch"):
        runner.call_hook(point)
    statement = (
        "call_hook('before_train_iter', batch_idx=index, data_batch=batch); "
        "call_hook('after_train_iter', batch_idx=index, data_batch=batch, outputs=outputs)"
    )

    def make_hub(history: int) -> Any:
        # Its histories are filled in one go: an update copies the history, a million of them take hours.
        hub = TheirHub.get_instance(f"default_hooks_{history}_{time.monotonic_ns()}")
        for key in SCALARS if history else ():
            values = HistoryBuffer(np.arange(history, dtype=float), np.ones(history, int))
            hub.log_scalars[key] = values
            hub._resumed_keys[key] = True  # noqa: SLF001 - as its update does
        return hub

    return Contender(runner, statement, make_hub, {"call_hook": runner.call_hook})


@contextlib.contextmanager
def contenders(histories: list[int]) -> Iterator[dict[str, Contender]]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found: dict[str, Contender] = {}
        for name, make in ((OURS, asynchooks_contender), (THEIRS, mmengine_contender)):
            try:
                found[name] = make(folder / name, stack)
            except ImportError as missing:
                print(f"left out: {name} ({missing})")
        outputs = {"loss": torch.tensor(0.5)}
        for contender in found.values():
            contender.hubs = {history: contender.make_hub(history) for history in histories}
            contender.names |= {
                "runner": contender.runner,
                "index": NOT_DUE,
                "batch": None,
                "outputs": outputs,
            }
        yield found


def measure(
    found: dict[str, Contender], histories: list[int], rounds: int, sample_s: float
) -> dict[tuple[str, int], list[float]]:
    """Return µs per iteration for each contender and history, one number per round."""
    cases = [(name, history) for history in histories for name in found]
    calls = {}
    for name, history in cases:
        once_us = min(found[name].sample(history, 3) for _ in range(3))
        calls[name, history] = max(3, min(200, int(sample_s * 1e6 / once_us)))
    samples: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    gc.disable()
    for turn in range(rounds):
        start = turn % len(cases)
        for case in cases[start:] + cases[:start]:
            samples[case].append(found[case[0]].sample(case[1], calls[case]))
        gc.collect()
    gc.enable()
    return samples


def kept_in_a_checkpoint(hub: Any) -> dict[str, float]:
    """Return bytes in the file, and ms to take the state of the hub."""
    start = time.perf_counter()
    state = hub.state_dict()
    taken_ms = (time.perf_counter() - start) * 1e3
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return {"bytes": buffer.tell(), "state_dict_ms": taken_ms}


def summarize(
    samples: dict[tuple[str, int], list[float]], kept: dict[tuple[str, int], dict[str, float]], history: int
) -> dict[str, dict[str, float]]:
    rows = {}
    for name in (name for name, length in samples if length == history):
        values = samples[name, history]
        low, middle, high = statistics.quantiles(values, n=4)
        ratios = [value / ours for value, ours in zip(values, samples[OURS, history], strict=True)]
        rows[name] = {
            "median_us": middle,
            "quartile_low_us": low,
            "quartile_high_us": high,
            "times_asynchooks": statistics.median(ratios),
            **kept[name, history],
        }
    return rows


def table(summaries: dict[int, dict[str, dict[str, float]]]) -> str:
    lines = [
        "| iterations behind | contender | median µs | quartiles µs | x asynchooks | KB per checkpoint | ms |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    for history, rows in summaries.items():
        for name, row in rows.items():
            spread = f"{row['quartile_low_us']:,.1f} - {row['quartile_high_us']:,.1f}"
            lines.append(
                f"| {history:,} | {name} | {row['median_us']:,.1f} | {spread} | {row['times_asynchooks']:,.1f} "
                f"| {row['bytes'] / 1e3:,.0f} | {row['state_dict_ms']:,.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--sample-ms", type=float, default=5.0, help="length of one sample")
    parser.add_argument("--histories", type=int, nargs="+", default=list(HISTORIES), help="in iterations")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument("--write-readme", action="store_true", help="put the table into benchmarks/README.md")
    options = parser.parse_args()

    torch.set_num_threads(1)
    logging.getLogger("asynchooks").setLevel(logging.ERROR)
    environment = describe_environment("torch", "mmengine")
    caption = f"{environment_line(environment)}; {options.rounds} rounds."
    print(caption)
    with contenders(options.histories) as found:
        kept = {(n, h): kept_in_a_checkpoint(c.hubs[h]) for n, c in found.items() for h in options.histories}
        samples = measure(found, options.histories, options.rounds, options.sample_ms / 1e3)
    summaries = {history: summarize(samples, kept, history) for history in options.histories}
    print(f"\n{table(summaries)}")
    if options.json:
        raw = {f"{name}, {history}": values for (name, history), values in samples.items()}
        results = {
            "environment": environment,
            "rounds": options.rounds,
            "summaries": summaries,
            "samples_us": raw,
        }
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.write_readme:
        write_section("default_hooks", f"{caption}\n\n{table(summaries)}")


if __name__ == "__main__":
    main()
