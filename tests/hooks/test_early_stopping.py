"""When a training that no longer gets better ends."""

import logging
import math
from pathlib import Path
from typing import Any

import pytest

from asynchooks.hooks import CheckpointHook, EarlyStoppingHook


def judged(hook: EarlyStoppingHook, *scores: float) -> list[bool]:
    """Return whether the hook wanted to stop after each score."""
    return [hook._judge(score) is not None for score in scores]


def test_it_stops_after_as_many_validations_without_progress_as_it_has_patience() -> None:
    hook = EarlyStoppingHook("acc", min_delta=0.1, patience=2)

    assert judged(hook, 0.2, 0.25, 0.5, 0.55, 0.55) == [False, False, False, False, True]
    assert (hook.best_score, hook.wait_count) == (0.5, 2)


def test_a_rule_is_inferred_and_less_may_be_better() -> None:
    hook = EarlyStoppingHook("val_loss", patience=1)

    assert judged(hook, 1.0, 0.5, 0.45) == [False, False, True]
    with pytest.raises(ValueError, match=r"EarlyStoppingHook\(monitor='mood'\)"):
        EarlyStoppingHook("mood")


def test_what_is_not_finite_stops_at_once_unless_it_may_be() -> None:
    assert judged(EarlyStoppingHook("acc"), math.nan) == [True]
    hook = EarlyStoppingHook("acc", check_finite=False, patience=2)

    assert judged(hook, 0.5, math.nan, 0.7) == [False, False, False]
    assert hook.best_score == 0.7


def test_a_threshold_stops_at_once() -> None:
    assert judged(EarlyStoppingHook("acc", stopping_threshold=0.9), 0.9, 0.95) == [False, True]
    assert judged(EarlyStoppingHook("loss", stopping_threshold=0.1), 0.05) == [True]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"monitor": ["acc"]}, "name of one metric"),
        ({"monitor": "acc", "patience": 1.5}, "int >= 0"),
        ({"monitor": "acc", "min_delta": math.nan}, "min_delta=nan"),
        ({"monitor": "acc", "rule": "more"}, "'greater', 'less' or None"),
    ],
)
def test_a_wrong_argument_is_said_at_construction(options: dict[str, Any], word: str) -> None:
    with pytest.raises((TypeError, ValueError), match=word):
        EarlyStoppingHook(**options)


def test_a_missing_metric_is_a_warning_or_strictly_an_error(
    train: Any, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = [{"accuracy": 0.5}]
    hook = EarlyStoppingHook("accuracyy")
    train(hook, epochs=1, metrics=metrics)

    assert "Did you mean 'accuracy'" in caplog.text
    assert hook.wait_count == 0
    with pytest.raises(KeyError, match="has no such metric"):
        train(EarlyStoppingHook("accuracyy", strict=True), epochs=1, metrics=metrics)


def test_a_loop_of_ones_own_reads_should_stop(train: Any) -> None:
    hook = EarlyStoppingHook("acc", patience=1)
    train(hook, epochs=2, metrics=[{"acc": 0.5}, {"acc": 0.5}])

    assert hook.should_stop


def test_a_validation_outside_of_a_training_counts_nothing(train: Any, make_state: Any) -> None:
    hook = EarlyStoppingHook("acc")
    state = train(hook, epochs=1, metrics=[{"acc": 0.5}])
    hook.after_val_epoch(state, metrics={"acc": 0.5})
    hook.before_run(state)
    hook.after_val_epoch(state, metrics={"acc": 0.5})

    assert (hook.best_score, hook.wait_count) == (0.5, 0)


def test_a_resumed_run_waits_on(train: Any, make_state: Any, tmp_path: Path) -> None:
    metrics = [{"acc": 0.5}, {"acc": 0.5}, {"acc": 0.5}]
    train(EarlyStoppingHook("acc", patience=9), CheckpointHook(interval=1), epochs=3, metrics=metrics)
    hook = EarlyStoppingHook("acc", patience=9)
    state = make_state()

    class Resuming:
        priority = "HIGHEST"

        def before_train(self, runner: Any) -> None:
            runner.resume(tmp_path / "run" / "epoch_3.pth")

    train(Resuming(), hook, state=state, epochs=3)

    assert (hook.best_score, hook.wait_count) == (0.5, 1)  # saved before its own epoch's validation


def test_the_reason_is_logged(train: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        train(EarlyStoppingHook("acc", patience=1), epochs=2, metrics=[{"acc": 0.5}, {"acc": 0.4}])

    assert "acc has not become better in the last 1 validations; its best is 0.500" in caplog.text
