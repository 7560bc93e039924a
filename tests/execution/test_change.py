"""What a capture leaves under way is waited for before a hook that may change training state is called."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from asynchooks.errors import ExecutorError, HookDefinitionError
from asynchooks.execution import Effects, Hook, HookExecutor, background
from asynchooks.testing import RecordingInstrument


class Harmless(Hook):
    effects = Effects()
    changes_state = False

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.log.append("harmless")


class Changing(Hook):
    effects = Effects()
    priority = "LOWEST"

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.log.append("changing")


class Capturing(Hook):
    """Leaves a copy under way in every firing of after_train_iter."""

    effects = Effects()
    changes_state = False

    def __init__(self, log: list[str], wait: Callable[[], None] | None = None) -> None:
        self.log = log
        self.wait = wait or (lambda: log.append("waited"))
        self.barriers: list[Any] = []

    @background
    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> Any:
        self.log.append("captured")
        self.barriers.append(runner.executor.before_next_change(self.wait))


class Context:
    def __init__(self, executor: HookExecutor) -> None:
        self.executor = executor


def _fire(executor: HookExecutor, *points: str) -> None:
    for point in points:
        executor.fire(point, Context(executor), batch_idx=0, data_batch=None)


def test_a_hook_that_may_change_state_waits_once_and_others_never() -> None:
    log: list[str] = []
    with HookExecutor([Harmless(log), Capturing(log), Changing(log)]) as executor:
        _fire(executor, "before_train_iter", "after_train_iter", "before_train_iter", "before_train_iter")

    assert log == [
        "harmless",
        "changing",
        "captured",
        "harmless",
        "waited",
        "changing",
        "harmless",
        "changing",
    ]


def test_hooks_are_taken_to_change_state_unless_they_say_otherwise() -> None:
    class Foreign:
        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            log.append("foreign")

    log: list[str] = []
    with HookExecutor([Capturing(log), Foreign()]) as executor:
        _fire(executor, "after_train_iter", "before_train_iter")

    assert log == ["captured", "waited", "foreign"]


def test_a_lifted_barrier_is_not_waited_at() -> None:
    log: list[str] = []
    capturing = Capturing(log)
    with HookExecutor([capturing, Changing(log)]) as executor:
        _fire(executor, "after_train_iter")
        lifting = threading.Thread(target=capturing.barriers[0].lift)
        lifting.start()
        lifting.join()
        _fire(executor, "before_train_iter")

    assert log == ["captured", "changing"]


def test_the_next_hook_of_the_same_firing_waits() -> None:
    class Surgery(Changing):
        def after_train_iter(
            self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> None:
            self.log.append("surgery")

    log: list[str] = []
    with HookExecutor([Capturing(log), Surgery(log)]) as executor:
        _fire(executor, "after_train_iter")

    assert log == ["captured", "waited", "surgery"]


def test_a_hook_of_a_nested_firing_waits() -> None:
    class Outer(Hook):
        changes_state = False

        def before_val(self, runner: Any) -> None:
            _fire(runner.executor, "after_train_iter", "before_train_iter")

    log: list[str] = []
    with HookExecutor([Outer(), Capturing(log), Changing(log)]) as executor:
        executor.fire("before_val", Context(executor))

    assert log == ["captured", "waited", "changing"]


def test_a_capture_nested_in_a_capture_holds_back_the_rest_of_its_firing() -> None:
    class Outer(Hook):
        changes_state = False

        @background
        def before_val(self, runner: Any) -> Any:
            _fire(runner.executor, "before_train_iter")

    class Inner(Harmless):
        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            runner.executor.before_next_change(lambda: log.append("waited"))

    log: list[str] = []
    with HookExecutor([Outer(), Inner(log), Changing(log)]) as executor:
        executor.fire("before_val", Context(executor))

    assert log == ["waited", "changing"]


def test_a_deferred_hook_waits() -> None:
    class Saving(Hook):
        fires = ("after_save_checkpoint",)
        changes_state = False

        @background
        def before_val(self, runner: Any) -> Any:
            async def save() -> None:
                runner.executor.fire_nowait("after_save_checkpoint", runner, path="", meta={})

            return save

    class Told(Hook):
        def after_save_checkpoint(self, runner: Any, path: str, meta: Any) -> None:
            log.append("told")

    log: list[str] = []
    with HookExecutor([Saving(), Told(), Capturing(log)]) as executor:
        _fire(executor, "after_train_iter")
        executor.fire("before_val", Context(executor))
        executor.drain()

    assert log == ["captured", "waited", "told"]


def test_the_wait_is_exposed_time_of_the_capture() -> None:
    instrument = RecordingInstrument()
    log: list[str] = []

    def wait() -> None:
        with capturing.barriers[0].waiting():
            log.append("waited")

    capturing = Capturing(log, wait)
    with HookExecutor([capturing, Changing(log)], instrument=instrument) as executor:
        _fire(executor, "after_train_iter", "before_train_iter")
        (row,) = executor.statistics().of("Capturing")

    (span,) = instrument.of("stage")
    assert (span.hook, span.point) == ("Capturing", "after_train_iter")
    assert row.exposed_s >= row.stage_s > 0


def test_a_wait_on_another_thread_is_not_the_training_threads_time() -> None:
    log: list[str] = []
    capturing = Capturing(log)

    def wait() -> None:
        with capturing.barriers[0].waiting():
            pass

    with HookExecutor([capturing]) as executor:
        _fire(executor, "after_train_iter")
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
        (row,) = executor.statistics().of("Capturing")

    assert row.stage_s == 0


def test_a_barrier_belongs_into_a_capture() -> None:
    with HookExecutor() as executor, pytest.raises(ExecutorError, match="outside of a capture"):
        executor.before_next_change(lambda: None)


def test_what_a_hook_says_of_its_changes_is_a_bool() -> None:
    class Vague(Hook):
        changes_state = "no"  # type: ignore[assignment]

    with pytest.raises(HookDefinitionError, match="Vague.changes_state is 'no'"):
        HookExecutor([Vague()])
