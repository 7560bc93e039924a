"""What the demo says: the table, its caption, the proof, the picture. Decides words and layout alone."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from asynchooks._cli.demo._environment import environment_line
from asynchooks._cli.demo._measure import saving_captures
from asynchooks.trace import render_timeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asynchooks._cli.demo._measure import Arm, Baseline
    from asynchooks._cli.demo._proof import Claim
    from asynchooks._cli.demo._sizing import Sizing
    from asynchooks.instrument import Span

__all__ = ["as_json", "caption", "comparison_table", "picture"]


def comparison_table(baseline: Baseline, arms: Sequence[Arm], sizing: Sizing) -> Table:
    """Return the table: one row per quantity, one column per run."""
    table = Table(title="Saving inline and in the background, beside pure compute", title_justify="left")
    table.add_column("")
    table.add_column("pure compute", justify="right")
    for arm in arms:
        table.add_column(f'mode="{arm.mode}"', justify="right")
    for name, pure, cells in _rows(baseline, arms, sizing):
        table.add_row(name, pure, *cells)
    return table


def caption(
    baseline: Baseline, sizing: Sizing, store: str, threads: int, environment: dict[str, str], ranks: str
) -> str:
    """Return what a reader must know to judge the table, a few lines; ``ranks`` is "" for one process."""
    blocks = len(baseline.block_steps_per_s)
    lines = [
        (
            "loop: from the first save to the last step, whole cycles of save, validation and steps. exposed: the "
            "training thread stands still for hooks. inflation: steps are slower while a save is in flight. of pure "
            "compute: the loop without both, measured against the steps of the same run with nothing in flight. "
            "lag: from capture to commit. after the last step: validation and the last save, once per run."
        ),
        f"Same weights, data and {sizing.steps} steps in every run; a save every {sizing.interval} steps.",
        *([ranks] if ranks else []),
        f"Store: {store}.",
        (
            f"Torch uses {threads} thread(s) in every run; by default one core stays free for the store's client "
            f"and the server on this machine."
        ),
        (
            f"Pure compute: the same training and validation without checkpoints and logs, in {blocks} separate "
            f"blocks before, between and after the runs, which differ by up to {baseline.noise:.1%} from their "
            f"mean: so much is the noise of this machine, and of the row that compares with them."
        ),
        environment_line(environment),
    ]
    if not sizing.keeps_up and sizing.save_s is not None:
        lines.insert(
            2,
            f"This store needs {sizing.save_s:.1f} s for one save, and one comes every {sizing.cadence_s:.1f} s: "
            f"it cannot keep up, so training waits for it in every mode.",
        )
    return "\n".join(lines)


def picture(spans: Sequence[Span], width: int) -> str:
    """Return the timeline of one save: from a little before its capture to a little before the next one's."""
    saves = sorted(span.start_ns for span in saving_captures(spans) if span.point == "after_train_iter")
    ends = [span.end_ns for span in spans]
    middle = (len(saves) - 1) // 2
    cadence_ns = (saves[middle + 1] if middle + 1 < len(saves) else max(ends)) - saves[middle]
    start_ns = saves[middle] - cadence_ns // 10
    return render_timeline(spans, width=width, start_ns=start_ns, end_ns=start_ns + cadence_ns)


def as_json(
    baseline: Baseline,
    arms: Sequence[Arm],
    sizing: Sizing,
    claims: Sequence[Claim],
    environment: dict[str, str],
    options: dict[str, Any],
) -> dict[str, Any]:
    """Return all numbers, JSON-serializable."""
    return {
        "environment": environment,
        "options": options,
        "sizing": asdict(sizing),
        "pure_compute": asdict(baseline) | {"noise": baseline.noise},
        "runs": {
            arm.mode: asdict(arm)
            | {
                "steps_per_s": arm.steps_per_s,
                "of_pure_compute": arm.own_share,
                "against_the_blocks": arm.steps_per_s / baseline.steps_per_s,
            }
            for arm in arms
        },
        "proof": [asdict(claim) for claim in claims],
    }


def _rows(baseline: Baseline, arms: Sequence[Arm], sizing: Sizing) -> list[tuple[str, str, list[str]]]:
    pure_s = (sizing.steps - 1) / baseline.steps_per_s
    return [
        ("training loop, steps/s", f"{baseline.steps_per_s:.2f}", [f"{arm.steps_per_s:.2f}" for arm in arms]),
        ("  of pure compute", "100.0 %", [_percent(arm.own_share) for arm in arms]),
        (
            "  against the blocks",
            "",
            [_percent(arm.steps_per_s / baseline.steps_per_s) for arm in arms],
        ),
        ("exposed, s per save", "", [_per_save(arm.exposed_s, arm) for arm in arms]),
        ("inflation, s per save", "", [_per_save(arm.inflation_s, arm) for arm in arms]),
        ("lag, steps", "", [f"{arm.lag_steps:g}" for arm in arms]),
        ("checkpoints committed", "", [str(arm.committed) for arm in arms]),
        ("after the last step, s", "", [f"{arm.end_s:.1f}" for arm in arms]),
        ("wall time, s", f"{pure_s:.1f}", [f"{arm.wall_s:.1f}" for arm in arms]),
        ("  over pure compute, s", "", [f"{arm.wall_s - pure_s:+.1f}" for arm in arms]),
    ]


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.1f} %"


def _per_save(seconds: float | None, arm: Arm) -> str:
    return "unknown" if seconds is None else f"{seconds / max(1, arm.saves):.3f}"
