"""The profiler sees the same iterations as in MMEngine."""

from __future__ import annotations

from typing import Any

import pytest

SCHEDULE = {"wait": 1, "warmup": 1, "active": 2, "repeat": 1}


@pytest.mark.parametrize(
    ("options", "linear"),
    [
        ({}, 2 * 6),  # two layers, the six iterations of an epoch
        ({"by_epoch": False, "profile_times": 4}, 2 * 4),
        ({"by_epoch": False, "profile_times": 9, "schedule": SCHEDULE}, 2 * 2),
    ],
)
def test_the_same_iterations_are_profiled(side_by_side: Any, options: dict[str, Any], linear: int) -> None:
    counts: list[int] = []

    def count(profile: Any) -> None:
        counts.append(sum(e.count for e in profile.key_averages() if e.key == "aten::linear"))

    side_by_side(custom_hooks=[{"type": "ProfilerHook", "on_trace_ready": count, **options}])

    assert counts == [linear, linear]
