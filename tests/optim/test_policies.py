"""Closed forms: their ends, their order, and what has no value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynchooks.errors import ConfigError
from asynchooks.optim import policies

positive = st.floats(1e-4, 10)
ratios = st.floats(0.01, 1)


@given(start=positive, end=positive, strategy=st.sampled_from(["cos", "linear"]))
def test_an_annealing_goes_from_its_start_over_the_middle_to_its_end(
    start: float, end: float, strategy: str
) -> None:
    anneal = policies.annealing(strategy)

    assert anneal(start, end, 0) == pytest.approx(start)
    assert anneal(start, end, 0.5) == pytest.approx((start + end) / 2)
    assert anneal(start, end, 1) == pytest.approx(end)


@given(ratio=ratios, length=st.integers(1, 50), warmup=st.sampled_from(["linear", "exp"]))
def test_a_warmup_grows_from_its_ratio_to_one(ratio: float, length: int, warmup: str) -> None:
    factors = [policies.warmup_factor(warmup, ratio, i, length) for i in range(length + 1)]

    assert factors[0] == pytest.approx(ratio)
    assert factors[-1] == pytest.approx(1)
    assert factors == sorted(factors)
    assert policies.warmup_factor("constant", ratio, length // 2, length) == ratio


def test_steps_count_once_they_are_reached() -> None:
    by_interval = [policies.stepped(1.0, i, 2, 0.5) for i in range(5)]
    by_list = [policies.stepped(1.0, i, [1, 4], 0.5, lowest=0.3) for i in range(5)]

    assert by_interval == [1.0, 1.0, 0.5, 0.5, 0.25]
    assert by_list == [1.0, 0.5, 0.5, 0.5, 0.3]


def test_a_flat_cosine_stays_for_its_part() -> None:
    values = [policies.flat_cosine(1.0, 0.0, i, 8, 0.5) for i in range(9)]

    assert values[:5] == [1.0] * 5
    assert values[6] == pytest.approx(0.5)
    assert values[8] == pytest.approx(0.0)
    assert policies.flat_cosine(1.0, 0.1, 8, 8, 1.0) == pytest.approx(0.1)


def test_each_restart_begins_at_its_weight_and_nothing_follows_the_last_period() -> None:
    values = [policies.cosine_restart(2.0, 0.0, i, [2, 4], [1, 0.5]) for i in range(6)]

    assert values == pytest.approx([2.0, 1.0, 1.0, 0.853553, 0.5, 0.146447], abs=1e-6)
    with pytest.raises(ConfigError, match=r"periods \[2, 4\] end at 6, but the run is at 6"):
        policies.cosine_restart(2.0, 0.0, 6, [2, 4], [1, 0.5])


@given(length=st.integers(2, 20), gamma=ratios, cycle=st.integers(0, 4), data=st.data())
def test_a_cycle_reaches_its_top_and_each_next_one_is_lower(
    length: int, gamma: float, cycle: int, data: st.DataObject
) -> None:
    up = data.draw(st.integers(0, length - 1))

    def at(position: int) -> float:
        return policies.cyclic(1.0, position, length, up, (3.0, 0.5), gamma, policies.annealing_linear)

    assert at(cycle * length + up) == pytest.approx(1 + 2 * gamma**cycle)
    if up:
        assert at(cycle * length) == pytest.approx(1.0)


def test_phases_follow_each_other_and_one_of_no_length_is_over_at_once() -> None:
    phases = [(0.0, 5.0, 1.0), (4.0, 1.0, 3.0), (8.0, 3.0, 0.0)]
    values = [policies.piecewise(i, phases, policies.annealing_linear) for i in (0, 1, 4, 6, 8, 9)]

    assert values == [1.0, 1.5, 3.0, 1.5, 0.0, 0.0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: policies.annealing("cosine"), "'cos' or 'linear', not 'cosine'"),
        (lambda: policies.warmup_factor("exponential", 0.1, 0, 5), "not 'exponential'"),
    ],
)
def test_unknown_forms_are_refused(call: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call()  # type: ignore[operator]
