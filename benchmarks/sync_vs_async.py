"""Training with checkpoints on S3: inline, in the background, and pure compute, in one run.

Trains what `asynchooks demo` trains, for every combination of the given state sizes, store speeds and cadences.
Each round runs pure compute, mode="sync" and mode="async" once, in an order that rotates; ratios are taken inside
each round, so that a machine that drifts disturbs them least. The loop is timed from the first save to the last
step: whole cycles of a save, a validation and the steps to the next save. What comes after the last step, the last
save above all, comes once per run and is given apart. "Of own quiet steps" is the loop without exposed time and
inflation: pure compute by steps of the same run, seconds apart, with nothing in flight. Asserts nothing.

    python benchmarks/sync_vs_async.py --bandwidth 25 50 200 --json out.json --plot out.png

A cadence is compute between two saves over what the store needs for one: at 1.7 it keeps up, below 1 it cannot.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from asynchooks._cli.demo._environment import describe_environment, environment_line
from asynchooks._cli.demo._measure import Arm, Block
from asynchooks._cli.demo._store import open_store
from asynchooks._cli.demo._training import MODELS, Training

MODES = ("pure", "sync", "async")


@dataclass(frozen=True)
class Case:
    """One combination of parameters."""

    model: str
    bandwidth_mb_s: float
    cadence: float
    interval: int
    steps: int
    save_mb: float

    @property
    def label(self) -> str:
        return f"{self.save_mb:.0f} MB, {self.bandwidth_mb_s:g} MB/s, cadence {self.cadence:g}"


@dataclass(frozen=True)
class Round:
    """One run of each kind, back to back."""

    pure: Block
    sync: Arm
    async_: Arm

    @property
    def pure_steps_per_s(self) -> float:
        return self.pure.steps / self.pure.loop_s

    def share(self, mode: str) -> float:
        """Speed of a run as a share of pure compute's in the same round."""
        return self.arm(mode).steps_per_s / self.pure_steps_per_s

    def arm(self, mode: str) -> Arm:
        return self.sync if mode == "sync" else self.async_


def make_case(training: Training, model: str, bandwidth_mb_s: float, cadence: float, saves: int) -> Case:
    training.block(3, 1000)
    step_s = training.block(8, 1000).step_s
    save_s = training.save_bytes / (bandwidth_mb_s * 1e6)
    interval = max(2, round(cadence * save_s / step_s))
    return Case(model, bandwidth_mb_s, cadence, interval, interval * saves, training.save_bytes / 1e6)


def run_round(training: Training, case: Case, number: int) -> Round:
    results: dict[str, Any] = {}
    shift = number % len(MODES)
    for mode in MODES[shift:] + MODES[:shift]:
        if mode == "pure":
            results[mode] = training.block(case.steps, case.interval)
            continue
        with open_store(None, case.bandwidth_mb_s) as store:
            results[mode] = training.run(
                "sync" if mode == "sync" else "async",
                name=mode,
                store_url=store.url,
                options=store.options,
                steps=case.steps,
                interval=case.interval,
            )
    pure: Block = results["pure"]
    sync, async_ = (results[mode].measure(pure.validation_s) for mode in ("sync", "async"))
    return Round(pure, sync, async_)


def summarize(rounds: Sequence[Round]) -> dict[str, Any]:
    summary: dict[str, Any] = {"pure": {"steps_per_s": statistics.median(r.pure_steps_per_s for r in rounds)}}
    for mode in ("sync", "async"):
        arms = [r.arm(mode) for r in rounds]
        shares = [r.share(mode) for r in rounds]
        inflations = [None if a.inflation_s is None else a.inflation_s / a.saves for a in arms]
        summary[mode] = {
            "steps_per_s": statistics.median(a.steps_per_s for a in arms),
            "of_pure_compute": statistics.median(shares),
            "of_pure_compute_range": [min(shares), max(shares)],
            "exposed_s_per_save": statistics.median(a.exposed_s / a.saves for a in arms),
            "inflation_s_per_save": _median_or_none(inflations),
            "lag_steps": statistics.median(a.lag_steps for a in arms),
            "of_own_quiet_steps": _median_or_none([a.own_share for a in arms]),
            "after_last_step_s": statistics.median(a.end_s for a in arms),
        }
    return summary


def _median_or_none(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def table_row(case: Case, summary: dict[str, Any]) -> str:
    cells = [case.label, f"{summary['pure']['steps_per_s']:.2f}"]
    for mode in ("sync", "async"):
        row = summary[mode]
        low, high = row["of_pure_compute_range"]
        inflation = row["inflation_s_per_save"]
        cells += [
            f"{row['of_pure_compute']:.1%} ({low:.1%} - {high:.1%})",
            "-" if row["of_own_quiet_steps"] is None else f"{row['of_own_quiet_steps']:.1%}",
            f"{row['exposed_s_per_save']:.3f}",
            "-" if inflation is None else f"{inflation:.3f}",
        ]
    return "| " + " | ".join(cells) + " |"


HEADER = (
    "| state per save, link, cadence | pure steps/s "
    "| sync of pure | of own quiet steps | exposed s/save | inflation s/save "
    "| async of pure | of own quiet steps | exposed s/save | inflation s/save |\n"
    "|---" + "|---:" * 9 + "|"
)


def plot(results: Sequence[dict[str, Any]], caption: str, file: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(1.6 + 1.6 * len(results), 4.5), layout="constrained")
    for offset, mode, colour in ((-0.2, "sync", "#b0b0b0"), (0.2, "async", "#2a78b5")):
        rows = [result["summary"][mode] for result in results]
        shares = [100 * row["of_pure_compute"] for row in rows]
        low = [share - 100 * row["of_pure_compute_range"][0] for share, row in zip(shares, rows, strict=True)]
        high = [
            100 * row["of_pure_compute_range"][1] - share for share, row in zip(shares, rows, strict=True)
        ]
        places = [i + offset for i in range(len(results))]
        bars = axes.bar(
            places, shares, 0.38, yerr=[low, high], capsize=3, color=colour, label=f'mode="{mode}"'
        )
        axes.bar_label(bars, fmt="%.0f %%", label_type="center", color="white", fontsize=9)
    axes.axhline(100, color="black", linewidth=0.8)
    axes.set_xticks(range(len(results)), [result["label"].replace(", ", "\n") for result in results])
    axes.set_ylabel("training speed, % of pure compute")
    axes.set_title("Training with checkpoints on S3", loc="left")
    figure.legend(loc="outside upper right", ncols=2)
    figure.supxlabel(caption, fontsize=7)
    figure.savefig(file, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", nargs="+", default=["small"], choices=list(MODELS), help="sizes of the state"
    )
    parser.add_argument("--bandwidth", nargs="+", type=float, default=[50.0], help="store speeds, MB/s")
    parser.add_argument(
        "--cadence", nargs="+", type=float, default=[1.7], help="compute per save over save time"
    )
    parser.add_argument("--saves", type=int, default=5, help="saves per run; all but the last are timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--threads", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="torch's, in every run"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="write a picture (PNG) to this file")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    environment = describe_environment("torch", "asynchooks")
    caption = f"{environment_line(environment)}; {options.threads} torch thread(s), {options.rounds} rounds"
    print(f"{caption}\n\n{HEADER}", flush=True)
    results: list[dict[str, Any]] = []
    for model, bandwidth, cadence in itertools.product(options.model, options.bandwidth, options.cadence):
        training = Training(MODELS[model], options.device)
        case = make_case(training, model, bandwidth, cadence, options.saves)
        rounds = [run_round(training, case, number) for number in range(options.rounds)]
        summary = summarize(rounds)
        print(table_row(case, summary), flush=True)
        raw = [{"pure": asdict(r.pure), "sync": asdict(r.sync), "async": asdict(r.async_)} for r in rounds]
        results.append(asdict(case) | {"label": case.label, "summary": summary, "rounds": raw})
    if options.json:
        report = {"environment": environment, "threads": options.threads, "cases": results}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        plot(results, caption, options.plot)


if __name__ == "__main__":
    main()
