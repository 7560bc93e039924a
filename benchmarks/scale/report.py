"""Tables and a picture of what was simulated."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from scale.scenes import Outcome, grouped, spread
from scale.validating import Validated

__all__ = ["draw", "tables", "validation_table"]


def tables(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield lines of Markdown."""
    yield "| ranks | parts of 400 MB per rank | data written, s | requests | most/s | refused | writers failed |"
    yield "|---:|---|---:|---:|---:|---:|---:|"
    for ranks, label, found in grouped(outcomes, "data"):
        written = [each.written for each in found]
        failed = statistics.median(each.failed for each in written)
        time = spread([each.done_s[0] for each in written]) if not failed else "the save fails"
        yield (
            f"| {ranks:,} | {label} | {time} | {_middle(w.requests for w in written)} | "
            f"{_middle(w.peak_per_s for w in written)} | {_middle(w.refused for w in written)} | {failed:,.0f} |"
        )
    for table, head in (("steps", "how the ranks meet and commit"), ("fan-in", "fan_in, results")):
        yield ""
        yield (
            f"| ranks | {head} | data, s | committed after, s | departed after, s | "
            "result, KB | operations | busy, s | busiest second | longest queue, s |"
        )
        yield "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|"
        for ranks, label, found in grouped(outcomes, table):
            both = [(each.met, each.written.done_s[0]) for each in found if each.met is not None]
            yield (
                f"| {ranks:,} | {label} | {statistics.median(data_s for _, data_s in both):.1f} | "
                f"{spread([met.committed_s - data_s for met, data_s in both])} | "
                f"{spread([max(met.departed_s, met.deleted_s) - data_s for met, data_s in both])} | "
                f"{both[0][0].result_bytes / 1e3:.1f} | {_middle(met.operations for met, _ in both)} | "
                f"{statistics.median(met.busy_s for met, _ in both):.1f} | "
                f"{statistics.median(met.busiest_second for met, _ in both):.0%} | "
                f"{max(met.longest_queue_s for met, _ in both):.2f} |"
            )


def validation_table(found: Sequence[Validated]) -> Iterator[str]:
    """Yield lines of Markdown."""
    yield "| ranks | written, s: real, model | all arrived to all departed, ms: real (quartiles), model | model is |"
    yield "|---:|---:|---:|---:|"
    for each in found:
        low, middle, high = (1e3 * value for value in each.real_meeting_s)
        error = each.model_meeting_s * 1e3 / middle - 1
        yield (
            f"| {each.ranks} | {each.real_write_s:.3f}, {each.model_write_s:.3f} | "
            f"{middle:.1f} ({low:.1f} - {high:.1f}), {each.model_meeting_s * 1e3:.1f} | {error:+.0%} |"
        )


def draw(outcomes: Sequence[Outcome], file: Path) -> None:
    """Draw seconds after the data against ranks, a line for each way to meet."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "scale"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    ends: dict[str, Callable[[Outcome], float]] = {
        "committed": lambda each: each.met.committed_s if each.met else 0.0,
        "all departed": lambda each: max(each.met.departed_s, each.met.deleted_s) if each.met else 0.0,
    }
    for axis, (title, end) in zip(axes, ends.items(), strict=True):
        lines: dict[str, list[tuple[int, float]]] = {}
        for ranks, label, found in grouped(outcomes, "steps"):
            value = statistics.median(end(each) - each.written.done_s[0] for each in found)
            lines.setdefault(label, []).append((ranks, value))
        for label, points in lines.items():
            axis.loglog(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        axis.set(title=f"{title}, s after the last data", xlabel="ranks")
        axis.grid(visible=True, alpha=0.3)
    axes[0].legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


def _middle(values: Iterator[int]) -> str:
    return f"{statistics.median(values):,.0f}"
