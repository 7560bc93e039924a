"""From results to tables in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sharded_peers.case import SaveResult, Scene
from sharded_peers.savers import NO_SAVE, saver_class

__all__ = ["notes_text", "scene_text", "summarize"]

_HEADER = (
    "| saves after the first | exposed s | inflation s | together s | durable s | CPU s | MB of each rank | "
    "metadata KB | first: exposed, durable s |\n|---" + "|---:" * 8 + "|"
)


def summarize(
    scene: Scene, results: Sequence[SaveResult], refused: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Return a row for each saver: medians with ranges over the saves after the first, and what went wrong."""
    rows: dict[str, dict[str, Any]] = {}
    for name in scene.names:
        if name in refused:
            rows[name] = {"refused": refused[name]}
            continue
        own = [result for result in results if result.name == name]
        warm = [result for result in own if result.number and not result.verdict.startswith("failed")]
        first = [result for result in own if not result.number]
        bad = [result.verdict for result in own if result.verdict not in ("equal", "nothing")]
        rows[name] = {"saves": len(warm), "problems": list(dict.fromkeys(bad))}
        if warm:
            rows[name] |= _row(warm, first)
    return rows


def _row(warm: Sequence[SaveResult], first: Sequence[SaveResult]) -> dict[str, Any]:
    def over(value: Callable[[SaveResult], float | None]) -> dict[str, float] | None:
        known = [found for result in warm if (found := value(result)) is not None]
        if not known:
            return None
        return {"median": statistics.median(known), "low": min(known), "high": max(known)}

    parts = sorted({part for result in warm for part in result.parts})
    return {
        "exposed_s": over(lambda each: each.exposed_s),
        "inflation_s": over(lambda each: each.inflation_s),
        "noise_s": over(lambda each: each.noise_s),
        "cost_s": over(lambda each: each.exposed_s + (each.inflation_s or 0.0)),
        "durable_s": over(lambda each: each.durable_s),
        "cpu_s": over(lambda each: each.cpu_s),
        "steps": over(lambda each: float(each.steps)),
        "quiet_step_s": over(lambda each: each.quiet_step_s),
        "rank_bytes": warm[-1].rank_bytes,
        "other_bytes": warm[-1].other_bytes,
        "first_exposed_s": first[0].exposed_s if first else None,
        "first_durable_s": first[0].durable_s if first else None,
        "parts": {
            part: over(lambda each, part=part: each.parts.get(part))  # type: ignore[misc]
            for part in parts
        },
    }


def scene_text(scene: Scene, rows: Mapping[str, Mapping[str, Any]], problem: str = "") -> str:
    """Return a scene's table and its remarks, in Markdown."""
    steps = [row["quiet_step_s"]["median"] for row in rows.values() if "quiet_step_s" in row]
    quiet = f"Quiet step {statistics.median(steps) * 1e3:.1f} ms; " if steps else ""
    lines = [
        f"### {scene.title}\n",
        f"{quiet}{scene.saves} saves each after the first.\n",
        _HEADER,
        *(_table_row(name, rows[name]) for name in scene.names),
        "",
    ]
    remarks = []
    for name, row in rows.items():
        title = saver_class(name).title
        remarks += [f"- {title}: not measured, {row['refused']}"] if "refused" in row else []
        remarks += [f"- {title}: {bad}" for bad in row.get("problems", ())]
    if problem:
        remarks.append(f"- The scene did not end: {problem}")
    return "\n".join([*lines, *remarks, ""] if remarks else lines)


def notes_text(names: Sequence[str]) -> str:
    """Return what each saver does; which part of it costs what is not measured."""
    noted = [(saver_class(name).title, saver_class(name).note) for name in names]
    return "\n".join(f"- {title}: {note}." for title, note in noted if note)


def _table_row(name: str, row: Mapping[str, Any]) -> str:
    title = saver_class(name).title
    if "exposed_s" not in row:
        return f"| {title} |" + " - |" * 8
    wrong = " **wrong**" if row["problems"] else ""
    each = sorted({round(count / 1e6) for count in row["rank_bytes"]})
    saved = name != NO_SAVE
    cells = [
        f"{title}{wrong}",
        _range(row["exposed_s"]),
        _range(row["inflation_s"]),
        f"{row['cost_s']['median']:.3f}",
        _range(row["durable_s"], digits=2) if saved else "-",
        f"{row['cpu_s']['median']:.2f}",
        (f"{each[0]} - {each[-1]}" if len(each) > 1 else f"{each[0]}") if saved else "-",
        f"{row['other_bytes'] / 1e3:.0f}" if saved else "-",
        f"{row['first_exposed_s']:.2f}, {row['first_durable_s']:.2f}" if saved else "-",
    ]
    return "| " + " | ".join(cells) + " |"


def _range(spread: Mapping[str, float] | None, digits: int = 3) -> str:
    if spread is None:
        return "-"
    return f"{spread['median']:.{digits}f} ({spread['low']:.{digits}f} - {spread['high']:.{digits}f})"
