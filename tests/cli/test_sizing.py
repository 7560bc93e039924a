from __future__ import annotations

import pytest

from asynchooks._cli.demo._sizing import FEWEST_STEPS, choose_sizing


@pytest.mark.parametrize("step_s", [0.003, 0.2, 4.0])
@pytest.mark.parametrize("megabytes_per_s", [10, 50, 1000])
def test_the_store_keeps_up_at_the_chosen_cadence(step_s: float, megabytes_per_s: int) -> None:
    sizing = choose_sizing(
        step_s=step_s, save_bytes=170_000_000, bytes_per_s=megabytes_per_s * 1e6, steps=None
    )

    assert sizing.keeps_up
    assert sizing.steps % sizing.interval == 0


def test_a_length_that_was_asked_for_is_kept() -> None:
    sizing = choose_sizing(step_s=0.2, save_bytes=170_000_000, bytes_per_s=1e6, steps=50)

    assert (sizing.steps, sizing.interval) == (50, 13)
    assert not sizing.keeps_up


def test_the_shortest_run_has_two_saves_and_more() -> None:
    sizing = choose_sizing(step_s=0.2, save_bytes=1, bytes_per_s=None, steps=FEWEST_STEPS)

    assert sizing.steps // sizing.interval >= 2
    assert sizing.keeps_up
