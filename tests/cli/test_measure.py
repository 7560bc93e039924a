from __future__ import annotations

import pytest

from asynchooks._cli.demo._measure import Arm, Block, measure_arm, measure_baseline
from asynchooks.instrument import Span, SpanKind

SECOND = 1_000_000_000


def span(kind: SpanKind, start: float, end: float, hook: str = "CheckpointHook", lag: int = 0) -> Span:
    detail = {"lag_steps": lag, "ok": True} if kind == "background" else {}
    return Span(kind, hook, "after_train_iter", int(start * SECOND), int(end * SECOND), 0, detail)


def measured(*spans: Span, end: float = 10.0, final: float = 10.0) -> Arm:
    return measure_arm("async", spans, loop_ns=(0, int(end * SECOND)), end_ns=int(final * SECOND))


def test_standstills_inside_one_another_are_exposed_once() -> None:
    arm = measured(
        span("step", 0, 1),
        span("capture", 1, 3),
        span("backpressure", 1.5, 2.5),
        span("barrier", 5, 6),
    )

    assert arm.exposed_s == pytest.approx(3.0)


def test_what_is_waited_for_after_the_loop_is_not_exposed_in_it() -> None:
    arm = measured(span("step", 0, 1), span("barrier", 9, 12), end=10, final=12)

    assert arm.exposed_s == pytest.approx(1.0)
    assert arm.final_wait_s == pytest.approx(2.0)
    assert arm.wall_s == pytest.approx(12.0)


def test_inflation_is_what_steps_lose_while_a_save_is_in_flight() -> None:
    quiet = [span("step", i, i + 1, hook="") for i in range(5)]
    slow = [span("step", 5 + 1.2 * i, 6.2 + 1.2 * i, hook="") for i in range(2)]

    arm = measured(*quiet, *slow, span("background", 5.1, 7.3, lag=2))

    assert arm.inflation_s == pytest.approx(0.4)
    assert (arm.saves, arm.lag_steps) == (1, 2)


def test_other_hooks_in_the_background_are_no_saves() -> None:
    arm = measured(span("step", 0, 1, hook=""), span("background", 0, 1, hook="LoggerHook"))

    assert arm.saves == 0
    assert arm.inflation_s == 0


def test_without_a_quiet_step_the_inflation_is_unknown() -> None:
    assert measured(span("step", 0, 1, hook=""), span("background", 0, 1)).inflation_s is None


def test_the_baseline_is_the_mean_of_its_blocks_and_says_how_far_they_differ() -> None:
    baseline = measure_baseline(30, [Block(10, 1.0, 0.1), Block(10, 1.2, 0.12)])

    assert baseline.loop_s == pytest.approx(3.3)
    assert baseline.noise == pytest.approx(0.1)
