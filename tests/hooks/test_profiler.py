"""A profile of the beginning of a training; what is made of it is made behind the training."""

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from asynchooks.hooks import ProfilerHook


def test_the_first_iterations_are_in_the_trace_and_no_others(train: Any, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    train(ProfilerHook(by_epoch=False, profile_times=3, json_trace_path=str(path)), epochs=2, iters=3)

    names = [event.get("name") for event in json.loads(path.read_text())["traceEvents"]]
    assert names.count("aten::linear") == 3


def test_an_epoch_is_profiled_once(train: Any, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []
    train(ProfilerHook(on_trace_ready=lambda profile: seen.append(profile.step_num)), epochs=3, iters=2)

    assert seen == [2]


def test_what_is_made_of_a_trace_is_made_off_the_training_thread(train: Any) -> None:
    threads: list[threading.Thread] = []
    hook = ProfilerHook(on_trace_ready=lambda profile: threads.append(threading.current_thread()))
    train(hook, epochs=1)

    assert threads
    assert threads[0] is not threading.main_thread()


@pytest.mark.filterwarnings("ignore:.*Profiler clears events:UserWarning")
def test_each_cycle_of_a_schedule_is_handed_over_as_it_was(train: Any) -> None:
    profiles: list[Any] = []
    schedule = {"wait": 1, "warmup": 1, "active": 1, "repeat": 2}
    hook = ProfilerHook(schedule=schedule, on_trace_ready=profiles.append)
    train(hook, epochs=1, iters=7)

    steps = [{e.key for e in p.key_averages() if e.key.startswith("ProfilerStep")} for p in profiles]
    assert [p.step_num for p in profiles] == [3, 6]
    assert steps == [{"ProfilerStep#2"}, {"ProfilerStep#5"}] or steps == [{"ProfilerStep*"}] * 2
    assert profiles[0].profiler is not profiles[1].profiler


def test_a_table_is_logged(train: Any, caplog: pytest.LogCaptureFixture) -> None:
    table = {"type": "log_trace", "sort_by": "cpu_time_total", "row_limit": 5}
    with caplog.at_level(logging.INFO):
        train(ProfilerHook(on_trace_ready=table), epochs=1)

    assert "Self CPU" in caplog.text


def test_traces_for_tensorboard_stand_in_the_log_folder(train: Any, make_state: Any, tmp_path: Path) -> None:
    state = make_state()
    train(ProfilerHook(on_trace_ready={"type": "tb_trace"}), epochs=1, state=state)
    elsewhere = tmp_path / "elsewhere"
    train(
        ProfilerHook(on_trace_ready={"type": "tb_trace", "dir_name": str(elsewhere), "worker_name": "me"}),
        epochs=1,
    )

    assert list(Path(state.log_dir, "tf_tracing_logs").glob("*.pt.trace.json"))
    assert list(elsewhere.glob("me.*.pt.trace.json"))


def test_a_remote_run_says_where_traces_could_go(train: Any) -> None:
    with pytest.raises(ValueError, match="absolute dir_name"):
        train(ProfilerHook(on_trace_ready={"type": "tb_trace"}), epochs=1, work_dir="memory://profiled")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"profile_times": 0}, "int >= 1"),
        ({"profile_times": 2}, "by_epoch=False"),
        ({"activity_with_cpu": False}, "nothing is recorded"),
        ({"on_trace_ready": 3}, "give a function"),
        ({"on_trace_ready": {"type": "tb_trac"}}, "Did you mean 'tb_trace'"),
    ],
)
def test_a_wrong_argument_is_said_at_construction(options: dict[str, Any], word: str) -> None:
    with pytest.raises((ValueError, KeyError), match=word):
        ProfilerHook(**options)


def test_a_training_shorter_than_the_profile_is_an_error(train: Any) -> None:
    with pytest.raises(ValueError, match="the training has 4 iterations only"):
        train(ProfilerHook(by_epoch=False, profile_times=5), epochs=2, iters=2)


def test_a_training_that_failed_leaves_the_next_one_its_profiler(train: Any) -> None:
    seen: list[int] = []
    hook = ProfilerHook(on_trace_ready=lambda profile: seen.append(profile.step_num))

    class Failing:
        def after_train_iter(self, runner: Any, **_: Any) -> None:
            raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        train(hook, Failing(), epochs=1)
    train(hook, epochs=1, iters=2)

    assert seen == [2]
