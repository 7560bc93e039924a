"""The progress line: there for a terminal, gone for anything else, never in the way of a log line."""

import io
import logging
import os
import pty
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rich.console import Console

from asynchooks.execution import HookExecutor
from asynchooks.hooks import ProgressHook
from asynchooks.runner import TrainState


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def console(stream: io.StringIO) -> Console:
    return Console(file=stream, width=120, color_system=None, _environ={"TERM": "xterm"})


def fire(hook: ProgressHook, state: TrainState, steps: int = 1) -> Any:
    with HookExecutor([hook]) as executor:
        for step in range(steps):
            outputs = {"loss": torch.tensor(0.25)}
            executor.fire("after_train_iter", state, batch_idx=step, outputs=outputs)
        executor.drain()
        return executor.statistics()


def test_a_terminal_sees_position_loss_and_background_work(make_state: Callable[..., TrainState]) -> None:
    screen = Terminal()
    fire(ProgressHook(console=console(screen), refresh_s=1e-9), make_state(epochs=3, iters=4))

    shown = screen.getvalue()
    assert "epoch 1/3" in shown
    assert "1/12" in shown
    assert "loss 0.25" in shown
    assert "0 in flight" in shown
    assert "\n" not in shown


def test_nobody_watching_means_nothing_written_and_nothing_done(
    make_state: Callable[..., TrainState],
) -> None:
    log = io.StringIO()
    statistics = fire(ProgressHook(console=console(log), refresh_s=1e-9), make_state(), steps=5)

    assert log.getvalue() == ""
    assert sum(row.parts for row in statistics.hooks) == 0


def test_refreshes_are_rare(make_state: Callable[..., TrainState]) -> None:
    statistics = fire(ProgressHook(console=console(Terminal()), refresh_s=3600), make_state(), steps=50)

    assert [row.parts for row in statistics.hooks if row.point == "after_train_iter"] == [1]


def test_a_log_line_takes_the_place_of_the_progress_line(make_state: Callable[..., TrainState]) -> None:
    screen = Terminal()
    state = make_state()
    handler = logging.StreamHandler(screen)
    state.logger.addHandler(handler)
    try:
        fire(ProgressHook(console=console(screen), refresh_s=1e-9), state)
        state.logger.warning("something happened")
    finally:
        state.logger.removeHandler(handler)

    before, _, after = screen.getvalue().rpartition("\x1b[2K")
    assert "loss 0.25" in before
    assert after == "something happened\n"


def test_the_line_is_cleared_after_training(train: Any) -> None:
    screen = Terminal()
    train(ProgressHook(console=console(screen), refresh_s=1e-9), epochs=1)

    assert screen.getvalue().endswith("\x1b[2K")


def test_a_validation_is_shown_too(make_state: Callable[..., TrainState]) -> None:
    screen, state = Terminal(), make_state()
    with HookExecutor([ProgressHook(console=console(screen), refresh_s=1e-9)]) as executor:
        executor.fire("after_val_iter", state, batch_idx=2)

    assert "val" in screen.getvalue()
    assert "3" in screen.getvalue()


def test_a_real_terminal_is_recognised(make_state: Callable[..., TrainState]) -> None:
    master, slave = pty.openpty()
    with os.fdopen(master, "rb", buffering=0) as screen, os.fdopen(slave, "w") as terminal:
        hook = ProgressHook(
            console=Console(file=terminal, width=100, _environ={"TERM": "xterm"}), refresh_s=1e-9
        )
        fire(hook, make_state())
        shown = screen.read(4096).decode()

    assert "train" in shown


def test_a_refresh_without_a_time_is_refused() -> None:
    with pytest.raises(ValueError, match="refresh_s=0"):
        ProgressHook(refresh_s=0)
