"""Entering, closing, forking, forgetting to close, and Ctrl-C: nothing is lost and nothing hangs."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
from typing import Any

import anyio
import pytest

from asynchooks import Effects, Hook, HookExecutor, current_executor
from asynchooks.errors import ExecutorClosedError, WrongThreadError
from asynchooks.testing import Gate


class Note(Hook):
    effects = Effects(writes={"notes"})

    def __init__(self) -> None:
        self.notes: list[str] = []

    async def before_train(self, runner: Any) -> None:
        await anyio.lowlevel.checkpoint()
        self.notes.append(threading.current_thread().name)


def test_a_closed_executor_refuses_and_can_be_entered_again() -> None:
    hook = Note()
    executor = HookExecutor([hook])
    with pytest.raises(ExecutorClosedError, match="was not entered"):
        executor.fire("before_train", None)
    for _ in range(2):
        with executor:
            executor.fire("before_train", None)
    with pytest.raises(ExecutorClosedError, match="is closed"):
        executor.fire("before_train", None)

    assert hook.notes == ["asynchooks-portal"] * 2


def test_close_twice_is_harmless_and_entering_twice_is_not() -> None:
    executor = HookExecutor()
    with executor:
        with pytest.raises(ExecutorClosedError, match="entered already"):
            executor.__enter__()
        executor.close()
        executor.close()


def test_the_thread_ends_with_the_context() -> None:
    before = set(threading.enumerate())
    with HookExecutor([Note()]) as executor:
        executor.fire("before_train", None)

    assert set(threading.enumerate()) <= before


def test_another_thread_may_not_fire() -> None:
    errors: list[Any] = []

    def fire() -> None:
        try:
            executor.fire("before_train", None)
        except WrongThreadError as error:
            errors.append(str(error))

    with HookExecutor([Note()]) as executor:
        thread = threading.Thread(target=fire, name="stranger")
        thread.start()
        thread.join()

    assert "called on thread 'stranger'" in errors[0]


def test_the_current_executor_is_the_innermost_on_this_thread() -> None:
    assert current_executor() is None
    with HookExecutor() as outer:
        with HookExecutor() as inner:
            assert current_executor() is inner
        assert current_executor() is outer
    assert current_executor() is None


def test_forgetting_to_close_is_said_and_work_is_finished() -> None:
    hook = Note()
    executor = HookExecutor([hook])
    executor.__enter__()
    executor.fire("before_train", None)
    with pytest.warns(ResourceWarning, match="never closed"):
        del executor
        gc.collect()

    assert hook.notes == ["asynchooks-portal"]


def test_a_forked_child_gets_a_closed_executor() -> None:
    with HookExecutor([Note()]) as executor:
        executor.fire("before_train", None)
        child = os.fork()
        if child == 0:  # pragma: no cover - the child process
            try:
                executor.fire("before_train", None)
            except ExecutorClosedError as error:
                executor.close()
                os._exit(0 if "parent of this forked process" in str(error) else 2)
            os._exit(3)
        _, status = os.waitpid(child, 0)

        assert os.waitstatus_to_exitcode(status) == 0
        executor.fire("before_train", None)


def test_a_forked_child_leaves_the_parents_parts_and_makes_its_own_executor() -> None:
    gate = Gate()

    class Holds(Hook):
        async def before_train(self, runner: Any) -> None:
            await gate.wait()

    before = sys.getswitchinterval()
    with HookExecutor([Holds()]) as executor:
        executor.fire("before_train", None)
        gate.wait_reached()
        child = os.fork()
        if child == 0:  # pragma: no cover - the child process
            code = 2
            try:
                executor.__enter__()
            except ExecutorClosedError as error:
                note = Note()
                with HookExecutor([note]) as own:
                    own.fire("before_train", None)
                is_right = "make a new one here" in str(error) and len(note.notes) == 1
                code = 0 if is_right and sys.getswitchinterval() == pytest.approx(before) else 3
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        gate.open()

    assert os.waitstatus_to_exitcode(status) == 0


def run_script(script: Any, *, interrupt_after: Any = None, interrupts: Any = 0) -> Any:
    process = subprocess.Popen(
        [sys.executable, "-W", "always::ResourceWarning", "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    for _ in range(interrupts):
        while interrupt_after not in (line := process.stdout.readline()):
            assert line, process.stderr.read()
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


HEADER = """
    import anyio, sys
    from asynchooks import Hook, HookExecutor

    def say(word):
        print(word, flush=True)
"""


def test_a_program_that_forgot_to_close_finishes_the_work_and_says_so() -> None:
    code, out, err = run_script(
        HEADER
        + """
    class Upload(Hook):
        async def before_train(self, runner):
            await anyio.sleep(0.2)  # the program's own code has ended by then
            say("uploaded")

    executor = HookExecutor([Upload()])
    executor.__enter__()
    executor.fire("before_train", None)
    executor.fire("before_train", None)
    say("end of program")
    """
    )

    assert code == 0, err
    assert out.split("\n")[:3] == ["end of program", "uploaded", "uploaded"]
    assert "ResourceWarning: a HookExecutor was never closed" in err


def test_ctrl_c_finishes_what_is_in_flight() -> None:
    code, out, err = run_script(
        HEADER
        + """
    class Upload(Hook):
        async def before_train(self, runner):
            await anyio.sleep(0.3)
            say("uploaded")

    with HookExecutor([Upload()]) as executor:
        executor.fire("before_train", None)
        say("ready")
        while True:
            executor.fire("before_train_iter", None)
    """,
        interrupt_after="ready",
        interrupts=1,
    )

    assert "uploaded" in out
    assert "KeyboardInterrupt" in err
    assert code != 0


def test_a_second_ctrl_c_cancels_at_once() -> None:
    code, out, err = run_script(
        HEADER
        + """
    import logging
    logging.basicConfig(stream=sys.stdout, format="%(message)s")

    class Upload(Hook):
        async def before_train(self, runner):
            say("finishing in-flight work")  # the first signal: the part runs
            try:
                await anyio.sleep_forever()
            finally:
                say("cleaned up")

    with HookExecutor([Upload()], grace_period=1000) as executor:
        executor.fire("before_train", None)
        while True:
            executor.fire("before_train_iter", None)
    """,
        interrupt_after="finishing in-flight work",
        interrupts=2,
    )

    assert "cleaned up" in out
    assert "was cancelled before it had finished" in err
    assert code != 0


def test_ctrl_c_at_any_moment_ends_with_everything_settled() -> None:
    code, out, err = run_script(
        """
    import os, random, signal, threading
    import anyio
    from asynchooks import Effects, Hook, HookExecutor, background

    random.seed(5)

    class Saves(Hook):
        fires = ("after_save_checkpoint",)
        effects = Effects(writes={"a"})

        @background
        def after_train_iter(self, runner, **_):
            async def part():
                await anyio.sleep(random.random() * 0.0005)
                executor.fire_nowait("after_save_checkpoint", None, path="", meta={})
            return part

    class Listens(Hook):
        effects = Effects(reads={"a"})
        def after_save_checkpoint(self, runner, path, meta): pass
        async def before_val(self, runner): pass

    for trial in range(60):
        executor = HookExecutor([Saves(), Listens()], max_in_flight=3, grace_period=20)
        timer = threading.Timer(random.random() * 0.02, os.kill, (os.getpid(), signal.SIGINT))
        try:
            with executor:
                timer.start()
                while True:
                    executor.fire("after_train_iter", None, batch_idx=0)
                    executor.fire("before_val", None)
        except KeyboardInterrupt:
            assert executor.statistics().in_flight == 0
    print("threads", threading.active_count())
    """
    )

    assert (code, out) == (0, "threads 1\n"), err


def test_a_signal_handler_that_exits_while_the_training_thread_waits_lets_work_finish() -> None:
    code, out, err = run_script(
        HEADER
        + """
    import os, signal
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))

    class Upload(Hook):
        async def before_train(self, runner):
            os.kill(os.getpid(), signal.SIGTERM)  # as a cluster's scheduler does
            await anyio.sleep(0.2)
            say("uploaded")

    with HookExecutor([Upload()]) as executor:
        executor.fire("before_train", None)
        executor.drain()
    """
    )

    assert (code, out) == (7, "uploaded\n"), err


def test_ctrl_c_in_the_callback_of_a_weak_reference_is_not_ignored() -> None:
    code, out, err = run_script(
        HEADER
        + """
    import signal, time, weakref

    class Thing: pass

    thing = Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
    with HookExecutor() as executor:
        del thing
        end = time.monotonic() + 10
        while time.monotonic() < end:
            executor.fire("before_train_iter", None, batch_idx=0)
    say("was ignored")
    """
    )

    assert "was ignored" not in out
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert code != 0


def test_importing_the_package_loads_no_torch() -> None:
    code, out, err = run_script(
        """
    import sys
    import asynchooks, asynchooks.execution, asynchooks.errors, asynchooks.instrument, asynchooks.registry
    print("torch" in sys.modules, "fsspec" in sys.modules)
    """
    )

    assert (code, out) == (0, "False False\n"), err


def test_the_switch_interval_is_restored() -> None:
    before = sys.getswitchinterval()
    seen: list[Any] = []

    class Look(Hook):
        async def before_train(self, runner: Any) -> None:
            seen.append(sys.getswitchinterval())

    with HookExecutor([Look()]) as executor:
        executor.fire("before_train", None)

    assert seen[0] < before
    assert sys.getswitchinterval() == pytest.approx(before)
