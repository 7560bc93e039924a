"""What a hook remembers goes on in a resumed run."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from asynchooks.execution import Effects, Hook
from asynchooks.runner._hook_states import hook_states, load_hook_states


class Counting(Hook):
    """Counts epochs, whatever run they belong to."""

    effects = Effects()

    def __init__(self) -> None:
        self.epochs = 0

    def after_train_epoch(self, runner: Any) -> None:
        self.epochs += 1

    def state_dict(self) -> dict[str, int]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epochs = state["epochs"]


def test_a_resumed_runs_hook_counts_on(make_runner: Any) -> None:
    checkpoint = {"checkpoint": {"type": "CheckpointHook", "interval": 1}, "logger": None, "timer": None}
    make_runner(custom_hooks=[Counting()], default_hooks=checkpoint).train()
    resumed = Counting()
    make_runner(
        custom_hooks=[resumed],
        default_hooks=checkpoint,
        resume=True,
        train_cfg={"by_epoch": True, "max_epochs": 3},
    ).train()

    assert resumed.epochs == 3


def test_two_hooks_of_a_class_keep_their_own_states() -> None:
    first, second = Counting(), Counting()
    first.epochs, second.epochs = 1, 2
    states = hook_states([first, Hook(), second])
    again = Counting(), Counting()
    load_hook_states(again, states)

    assert [hook.epochs for hook in again] == [1, 2]


def test_a_state_without_its_hook_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_hook_states([], {"Counting": {"epochs": 1}})

    assert "Counting" in caplog.text
