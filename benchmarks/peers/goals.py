"""What the project wants of a save, beside what was measured. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peers.contenders import FLOOR, OWN, is_peer
from peers.scenes import Scene

__all__ = ["Goal", "goal_lines", "median_of"]


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal, what was measured, and whether that is enough."""

    text: str
    measured: str
    is_met: bool


def goal_lines(scene: Scene, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the table of goals, with a column for each of our own contenders; empty without a floor."""
    floor = rows.get(FLOOR, {})
    own = [name for name in OWN if "exposed_s" in rows.get(name, {})]
    if not own or "exposed_s" not in floor:
        return []
    costs = {
        name: median_of(row, "cost_s") for name, row in rows.items() if is_peer(name) and _is_durable(row)
    }
    columns = [_goals(scene, rows[name], floor, costs) for name in own]
    lines = [f"| goal | {' | '.join(own)} |", "|---" * (1 + len(own)) + "|"]
    for goals in zip(*columns, strict=True):
        cells = [f"{'yes' if goal.is_met else '**no**'}: {goal.measured}" for goal in goals]
        lines.append(f"| {goals[0].text} | {' | '.join(cells)} |")
    return lines


def median_of(row: Mapping[str, Any], *keys: str) -> float:
    """Return the median under some keys of a row; not a number where there is none."""
    found: Any = row
    for key in (*keys, "median"):
        found = None if found is None else found.get(key)
    return float("nan") if found is None else float(found)


def _goals(
    scene: Scene, ours: Mapping[str, Any], floor: Mapping[str, Any], costs: Mapping[str, float]
) -> Sequence[Goal]:
    cost_s, durable_s, extra = (median_of(ours, key) for key in ("cost_s", "durable_s", "extra_bytes"))
    memcpy_s, write_s = median_of(floor, "parts", "memcpy_s"), median_of(floor, "parts", "write_s")
    itself = median_of(floor, "cost_s") / memcpy_s
    times = cost_s / memcpy_s
    goals = [
        Goal(
            "exposed + inflation <= 1.3 x memcpy", f"{times:.2f} x (the floor: {itself:.2f} x)", times <= 1.3
        )
    ]
    if costs:
        best = min(costs, key=lambda name: costs[name])
        told = f"{cost_s:.3f} s ({best}: {costs[best]:.3f} s)"
        goals.append(Goal("exposed + inflation ahead of every peer", told, cost_s < costs[best]))
    if scene.place in ("s3", "slow-s3"):
        share = write_s / durable_s
        goals.append(Goal("until durable >= 90 % of bare obstore's speed", f"{share:.0%}", share >= 0.9))
    else:
        times = durable_s / write_s
        goals.append(Goal("until durable <= 1.3 x raw write", f"{times:.2f} x {write_s:.2f} s", times <= 1.3))
    allowed = 1.05 * ours["state_bytes"] + 64e6
    told = f"{extra / 1e6:.0f} of {allowed / 1e6:.0f} MB"
    goals.append(Goal("extra memory <= 1.05 x state + 64 MB", told, extra <= allowed))
    p50 = median_of(ours, "ratio_p50")
    if scene.workload == "launch":
        told = "-" if math.isnan(p50) else f"{p50:.2f} x (the floor: {median_of(floor, 'ratio_p50'):.2f} x)"
        goals.append(Goal("step in flight p50 <= 1.1 x quiet", told, not p50 > 1.1))
    if scene.device != "cpu":
        share = median_of(ours, "exposed_s") / median_of(ours, "quiet_step_s")
        goals.append(Goal("exposed per save, of a step", f"{share:.0%}", share <= 1.0))
    return goals


def _is_durable(row: Mapping[str, Any]) -> bool:
    """Whether a row's cost includes what a durable save takes: inline and without fsync, it does not."""
    if "cost_s" not in row:
        return False
    return row["inflation_s"] is not None or median_of(row, "durable_s") - median_of(row, "claimed_s") < 0.005
