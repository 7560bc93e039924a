from __future__ import annotations

import threading

import pytest

from asynchooks.instrument import Span
from asynchooks.trace import Recorder


def span(step: int) -> Span:
    return Span("step", "", "", step, step + 1, step)


def test_spans_come_back_in_the_order_in_which_they_were_recorded() -> None:
    recorder = Recorder()
    for step in range(3):
        recorder.record(span(step))

    assert [each.step for each in recorder.spans] == [0, 1, 2]


def test_only_the_newest_spans_are_kept() -> None:
    recorder = Recorder(max_spans=2)
    for step in range(5):
        recorder.record(span(step))

    assert [each.step for each in recorder.spans] == [3, 4]


def test_counts_from_several_threads_add_up() -> None:
    recorder = Recorder()

    def count() -> None:
        for _ in range(1000):
            recorder.count("checkpoint.bytes", 2)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert recorder.counts == {"checkpoint.bytes": 8000}


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_spans"):
        Recorder(max_spans=0)
