"""ClosureHook and ProfilerHook."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from asynchooks.errors import ConfigError
from asynchooks.hooks.mmcv import ClosureHook, ProfilerHook

from .conftest import MakeRun, loader


def test_a_function_runs_at_its_point(make_run: MakeRun) -> None:
    calls: list[Any] = []

    async def behind(runner: Any) -> None:
        calls.append(("behind", runner.epoch))

    hooks = [
        ClosureHook("after_iter", lambda runner: calls.append(runner.iter)),
        ClosureHook("before_train_epoch", lambda runner, note="default": calls.append(note)),
        ClosureHook("after_train_epoch", behind),
    ]
    make_run(*hooks, max_epochs=1).run([loader()])

    assert calls == ["default", 0, 1, ("behind", 0)]


def test_a_closure_needs_a_point_and_a_function() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'after_train_iter'"):
        ClosureHook("after_train_itr", print)
    with pytest.raises(TypeError, match="give a function"):
        ClosureHook("after_train_iter", 3)


@pytest.mark.parametrize(
    ("options", "limit"), [({}, {}), ({"by_epoch": False, "profile_iters": 2}, {"max_iters": 3})]
)
def test_the_trace_is_written_once(
    make_run: MakeRun, tmp_path: Path, options: Any, limit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "trace.json"
    table = {"type": "log_trace", "sort_by": "self_cpu_time_total", "row_limit": 3}
    hook = ProfilerHook(json_trace_path=str(path), on_trace_ready=table, **options)
    make_run(hook, **limit).run([loader()])

    events = json.loads(path.read_text())["traceEvents"]
    assert sum(event.get("name") == "aten::linear" for event in events) in (4, 8)  # two a step: 2 steps, or 4
    assert hook.profiler is None
    assert caplog.text.count("the profiler stops") == 1
    assert "Self CPU" in caplog.text


def test_a_function_gets_the_profile(make_run: MakeRun) -> None:
    profiles: list[Any] = []
    hook = ProfilerHook(
        by_epoch=False,
        profile_iters=3,
        schedule={"wait": 1, "warmup": 1, "active": 1},
        on_trace_ready=profiles.append,
    )
    make_run(hook, max_iters=4).run([loader()])

    assert len(profiles) == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"by_epoch": 1}, TypeError),
        ({"profile_iters": 0}, ConfigError),
        ({"activities": ["gpu"]}, ConfigError),
        ({"activities": "cpu"}, ConfigError),
        ({"on_trace_ready": {"type": "table"}}, ConfigError),
        ({"on_trace_ready": 3}, ConfigError),
        ({"schedule": {"waits": 1}}, TypeError),
    ],
)
def test_a_profilers_wrong_argument_is_refused(options: Any, error: Any) -> None:
    with pytest.raises(error):
        ProfilerHook(**options)


def test_a_run_shorter_than_the_profile_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(ConfigError, match="the run has 2 epochs only"):
        make_run(ProfilerHook(profile_iters=3)).run([loader()])


@pytest.mark.parametrize("point", ["after_train_iter", "after_train_epoch"])
def test_positions_are_right_after_a_run_that_failed_inside_a_firing(make_run: MakeRun, point: str) -> None:
    found: list[Any] = []

    def fail(runner: Any) -> None:
        if not failures:
            failures.append(runner.iter)
            raise ZeroDivisionError

    def note(runner: Any) -> None:
        position = runner._position()
        found.append((position["epoch"], position["iter"]) == (runner.epoch, runner.iter))

    failures: list[int] = []
    runner = make_run(ClosureHook(point, fail), ClosureHook("before_train_iter", note))
    with pytest.raises(ZeroDivisionError):
        runner.run([loader()])
    runner.run([loader()])

    assert all(found)
