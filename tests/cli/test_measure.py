from __future__ import annotations

import pytest

from asynchooks._cli.demo._measure import Arm, Block, measure_arm, measure_baseline, measure_block
from asynchooks.instrument import Span, SpanKind

SECOND = 1_000_000_000


def span(kind: SpanKind, start: float, end: float, hook: str = "CheckpointHook", lag: int = 0) -> Span:
    detail = {"lag_steps": lag, "ok": True} if kind == "background" else {}
    return Span(kind, hook, "after_train_iter", int(start * SECOND), int(end * SECOND), 0, detail)


def steps(start: float, count: int, length: float = 1.0) -> list[Span]:
    return [span("step", start + i * length, start + (i + 1) * length, hook="") for i in range(count)]


def measured(*spans: Span, end: float = 20.0) -> Arm:
    return measure_arm("async", spans, end_ns=int(end * SECOND), validation_s=0.5)


def test_the_loop_goes_from_the_first_save_to_the_last_step() -> None:
    arm = measured(
        *steps(0, 5),
        span("capture", 5.5, 6),
        span("background", 6, 8, lag=2),
        *steps(6, 4),
        span("capture", 10, 10.5),
        span("background", 10.5, 14),
        end=14,
    )

    assert arm.steps == 4
    assert arm.loop_s == pytest.approx(5.0)
    assert arm.wall_s == pytest.approx(14.0)
    assert (arm.saves, arm.committed, arm.lag_steps) == (1, 2, 2)
    assert arm.exposed_s == pytest.approx(0.5)
    assert arm.end_s == pytest.approx(4.0)


def test_standstills_inside_one_another_are_exposed_once() -> None:
    arm = measured(
        *steps(0, 1),
        span("capture", 1, 3),
        span("backpressure", 1.5, 2.5),
        span("barrier", 5, 6),
        *steps(6, 1),
    )

    assert arm.exposed_s == pytest.approx(3.0)


def test_inflation_is_what_steps_lose_while_a_save_is_in_flight() -> None:
    arm = measured(
        *steps(0, 5),
        span("capture", 5, 5),
        span("background", 5.1, 7.3),
        *steps(5, 2, length=1.2),
        *steps(7.4, 2),
    )

    assert arm.inflation_s == pytest.approx(0.4)
    assert arm.own_share == pytest.approx(1 - 0.4 / 4.4)


def test_a_validation_that_a_save_slows_down_is_inflation_too() -> None:
    arm = measured(
        *steps(0, 5),
        span("capture", 5, 5),
        span("background", 5, 6),
        span("step", 5, 5.75, hook="validation"),
        *steps(6, 2),
    )

    assert arm.inflation_s == pytest.approx(0.25)
    assert arm.steps == 2


def test_a_block_counts_steps_and_not_validations() -> None:
    block = measure_block([*steps(0, 3), span("step", 3, 3.5, hook="validation")], loop_ns=(0, 4 * SECOND))

    assert block == Block(steps=3, loop_s=4.0, step_s=1.0, validation_s=0.5)


def test_other_hooks_in_the_background_are_no_saves() -> None:
    arm = measured(
        *steps(0, 1), span("capture", 1, 1), span("background", 0, 1, hook="LoggerHook"), *steps(1, 1)
    )

    assert (arm.saves, arm.committed, arm.inflation_s) == (1, 0, 0)


def test_without_a_quiet_step_the_inflation_is_unknown() -> None:
    arm = measured(*steps(0, 1), span("capture", 1, 1), span("background", 0, 2), *steps(1, 1))

    assert arm.inflation_s is None
    assert arm.own_share is None


def test_the_baseline_is_the_mean_of_its_blocks_and_says_how_far_they_differ() -> None:
    baseline = measure_baseline([Block(10, 1.0, 0.1, 0.3), Block(10, 1.2, 0.12, 0.5)])

    assert baseline.steps_per_s == pytest.approx(20 / 2.2)
    assert baseline.validation_s == pytest.approx(0.4)
    assert baseline.noise == pytest.approx(0.1)
