"""From outcomes to tables, goals, a picture and the section of the README."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peers.case import Outcome, SaveResult
from peers.contenders import CONTENDERS, FLOOR, NO_SAVE, contender_class
from peers.goals import goal_lines, median_of
from peers.scenes import Scene

__all__ = ["Scene", "plot", "scene_text", "summarize"]


def summarize(
    scene: Scene, outcomes: Mapping[str, Sequence[Outcome]], refused: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Return a row for each contender: medians and ranges of the saves after the first, and what went wrong."""
    rows: dict[str, dict[str, Any]] = {}
    for name in scene.peers:
        if name in refused:
            rows[name] = {"refused": refused[name]}
            continue
        rounds = outcomes[name]
        warm = [
            (save, extra)
            for outcome in rounds
            for save, extra in zip(outcome.saves[1:], outcome.extra_bytes[1:], strict=True)
            if not save.verdict.startswith("failed")
        ]
        errors = [outcome.error for outcome in rounds if outcome.error]
        wrong = [
            save.verdict
            for outcome in rounds
            for save in outcome.saves
            if save.verdict not in ("equal", "not checked")
        ]
        rows[name] = {
            "does_without": contender_class(name).lacks,
            "problems": list(dict.fromkeys(errors + wrong)),
            "saves": len(warm),
        }
        if warm:
            rows[name] |= _row(rounds, [save for save, _ in warm], [extra for _, extra in warm])
    return rows


def _row(rounds: Sequence[Outcome], warm: Sequence[SaveResult], extra: Sequence[int]) -> dict[str, Any]:
    def over(values: Callable[[SaveResult], float | None]) -> dict[str, float] | None:
        return _spread([values(save) for save in warm])

    cold = [outcome.saves[0] for outcome in rounds if outcome.saves]
    parts = sorted({part for save in warm for part in save.parts})
    return {
        "state_bytes": rounds[0].state_bytes or max(outcome.state_bytes for outcome in rounds),
        "exposed_s": over(lambda save: save.exposed_s),
        "inflation_s": over(lambda save: save.inflation_s),
        "noise_s": over(lambda save: save.noise_s),
        "cost_s": over(lambda save: save.exposed_s + (save.inflation_s or 0.0)),
        "claimed_s": over(lambda save: save.claimed_s),
        "durable_s": over(lambda save: save.durable_s),
        "ratio_p50": over(lambda save: save.ratio_p50),
        "ratio_p99": over(lambda save: save.ratio_p99),
        "cpu_s": over(lambda save: save.cpu_s),
        "steps": over(lambda save: float(save.steps)),
        "quiet_step_s": over(lambda save: save.quiet_step_s),
        "extra_bytes": _spread(extra),
        "cold_exposed_s": _spread([save.exposed_s for save in cold]),
        "cold_durable_s": _spread([save.durable_s for save in cold]),
        "foreign_cores": _spread([outcome.foreign_cores for outcome in rounds]),
        "setup_s": _spread([outcome.setup_s for outcome in rounds]),
        "parts": {part: over(lambda save, part=part: save.parts.get(part)) for part in parts},  # type: ignore[misc]
    }


def _spread(values: Sequence[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {"median": statistics.median(known), "low": min(known), "high": max(known)}


_HEADER = (
    "| saves after the first | exposed s | inflation s | together, x memcpy | durable s (as claimed) | "
    "step in flight p50, p99 | extra memory, x state | CPU s | first: exposed, durable s |\n"
    "|---" + "|---:" * 8 + "|"
)


def scene_text(scene: Scene, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a scene's table, its goals and its remarks, in Markdown."""
    memcpy_s = median_of(rows.get(FLOOR, {}), "parts", "memcpy_s")
    measured = [row for row in rows.values() if "exposed_s" in row]
    about = ""
    if measured:
        step_s = statistics.median(median_of(row, "quiet_step_s") for row in measured)
        foreign = statistics.median(median_of(row, "foreign_cores") for row in measured)
        server = ", the S3 server among them," if scene.place in ("s3", "slow-s3") else ""
        about = (
            f"State {measured[0]['state_bytes'] / 1e6:.0f} MB, quiet step {step_s * 1e3:.1f} ms; "
            f"{scene.rounds} round(s) with {scene.saves - 1} saves each after the first. "
            f"Other processes{server} kept {foreign:.2f} cores busy.\n"
        )
    lines = [f"### {scene.title}\n", about, _HEADER]
    lines += [_table_row(name, rows[name], memcpy_s) for name in CONTENDERS if name in rows]
    lines += ["", *goal_lines(scene, rows), "", *_remarks(rows)]
    return "\n".join(lines) + "\n"


def _table_row(name: str, row: Mapping[str, Any], memcpy_s: float) -> str:
    if "exposed_s" not in row:
        return f"| {name} |" + " - |" * 8
    claimed, durable = median_of(row, "claimed_s"), median_of(row, "durable_s")
    cells = [
        name,
        _range(row["exposed_s"]),
        _range(row["inflation_s"]),
        f"{median_of(row, 'cost_s') / memcpy_s:.1f}" if not math.isnan(memcpy_s) and name != NO_SAVE else "-",
        f"{durable:.2f}" + (f" ({claimed:.2f})" if durable - claimed > 0.005 else ""),
        "-"
        if row["ratio_p50"] is None
        else f"{median_of(row, 'ratio_p50'):.2f}, {median_of(row, 'ratio_p99'):.1f}",
        f"{median_of(row, 'extra_bytes') / row['state_bytes']:.2f}",
        f"{median_of(row, 'cpu_s'):.2f}",
        f"{median_of(row, 'cold_exposed_s'):.2f}, {median_of(row, 'cold_durable_s'):.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _remarks(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for name, row in rows.items():
        if "refused" in row:
            lines.append(f"- {name}: not measured, {row['refused']}.")
        for problem in row.get("problems", ()):
            lines.append(f"- {name}: {problem}")
    return lines


def _range(spread: Mapping[str, float] | None) -> str:
    if spread is None:
        return "-"
    return f"{spread['median']:.3f} ({spread['low']:.3f} - {spread['high']:.3f})"


def plot(results: Sequence[Mapping[str, Any]], caption: str, file: Path) -> None:
    """Draw what a save costs the training, exposed and inflation stacked, one panel per scene."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = [(result, _plotted(result["summary"])) for result in results]
    shown = [(result, names) for result, names in shown if names]
    heights = [len(names) for _, names in shown]
    figure, axes = plt.subplots(
        len(shown), 1, figsize=(9, 0.9 * len(shown) + 0.3 * sum(heights)), squeeze=False,
        height_ratios=heights, layout="constrained",
    )  # fmt: skip
    for axis, (result, names) in zip(axes[:, 0], shown, strict=True):
        rows = [result["summary"][name] for name in names]
        exposed = [median_of(row, "exposed_s") for row in rows]
        inflation = [
            0.0 if row["inflation_s"] is None else max(0.0, median_of(row, "inflation_s")) for row in rows
        ]
        axis.barh(names, exposed, color="#2a78b5", label="exposed")
        axis.barh(names, inflation, left=exposed, color="#e08a2e", label="inflation")
        axis.invert_yaxis()
        axis.set_title(Scene(**result["scene"]).title, loc="left", fontsize=9)
        axis.set_xlabel("training time lost per save, s", fontsize=8)
        axis.tick_params(labelsize=8)
    if shown:
        axes[0, 0].legend(fontsize=8)
    figure.supxlabel(caption, fontsize=6)
    figure.savefig(file, dpi=120)


def _plotted(summary: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [name for name, row in summary.items() if "exposed_s" in row and name != NO_SAVE]
