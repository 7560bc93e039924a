from __future__ import annotations

import pytest

from asynchooks.instrument import Span, SpanKind
from asynchooks.trace import render_timeline

MS = 1_000_000


def span(kind: SpanKind, start_ms: int, end_ms: int, hook: str = "CheckpointHook") -> Span:
    return Span(kind, hook, "after_train_iter", start_ms * MS, end_ms * MS)


def lines_of(*spans: Span, width: int = 60) -> list[str]:
    return render_timeline(spans, width=width).splitlines()


def test_a_save_is_drawn_below_the_training_thread_that_goes_on() -> None:
    steps = [span("step", i * 100, i * 100 + 100, hook="") for i in range(10)]
    picture = render_timeline(
        [
            *steps,
            span("capture", 300, 340),
            span("background", 340, 800),
            span("persist", 360, 760),
            span("commit", 760, 800),
        ],
        width=57,
    )

    assert picture == (
        "                 0 s                 0.5 s\n"
        "training thread  ┬───┬───┬───C───┬───┬───┬───┬───┬───┬───\n"
        "CheckpointHook                ▒▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓◆◆\n"
        "\n"
        "─ step or validation  C capture  ▒ background  ▓ persist  ◆ commit"
    )


def test_waits_of_the_training_thread_are_drawn_over_its_steps() -> None:
    training = lines_of(span("step", 0, 1000, hook=""), span("barrier", 500, 1000))[1]

    assert training.count("X") == pytest.approx(training.count("─"), abs=2)
    assert training.endswith("X")


def test_work_of_one_hook_that_overlaps_in_time_gets_lines_of_its_own() -> None:
    lines = lines_of(span("background", 0, 100), span("background", 50, 150))

    assert [line.split()[0] for line in lines[2:4]] == ["CheckpointHook", "▒" * lines[3].count("▒")]


def test_work_that_follows_shares_a_line() -> None:
    lines = lines_of(span("background", 0, 50), span("background", 50, 150))

    assert len([line for line in lines if "▒▒" in line]) == 1


def test_a_commit_shorter_than_a_column_is_still_drawn() -> None:
    lines = lines_of(span("background", 0, 10_000), span("commit", 5000, 5001), span("prune", 5001, 5002))

    assert lines[2].count("◆") == 1


def test_a_capture_shorter_than_a_column_is_drawn_small() -> None:
    training = lines_of(span("step", 0, 10_000, hook=""), span("capture", 5000, 5001))[1]

    assert training.count("c") == 1
    assert "C" not in training


def test_what_a_component_does_is_drawn_in_the_lane_of_the_hook_that_runs_it() -> None:
    picture = render_timeline([span("background", 0, 100), span("persist", 10, 90, hook="checkpointer")])

    assert "checkpointer" not in picture
    assert "▓" in picture


def test_a_component_on_its_own_has_a_lane_of_its_own() -> None:
    assert "checkpointer" in render_timeline([span("persist", 10, 90, hook="checkpointer")])


def test_only_what_lies_between_the_edges_is_drawn() -> None:
    picture = render_timeline(
        [span("background", 0, 100, hook="Early"), span("background", 200, 300, hook="Late")],
        start_ns=150 * MS,
        end_ns=300 * MS,
    )

    assert "Early" not in picture
    assert "Late" in picture


def test_no_line_is_wider_than_asked() -> None:
    spans = [span("step", i * 7, i * 7 + 7, hook="") for i in range(1000)]

    assert max(map(len, lines_of(*spans, width=72)[:-1])) <= 72


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(ValueError, match="No span"):
        render_timeline([])


def test_a_width_without_room_for_names_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 40"):
        render_timeline([span("step", 0, 1)], width=20)
