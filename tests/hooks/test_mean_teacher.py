from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from asynchooks.errors import ConfigError, UnknownOptionError
from asynchooks.execution import HookExecutor
from asynchooks.hooks.mean_teacher import MeanTeacherHook
from asynchooks.registry import HOOKS
from asynchooks.runner import TrainState


class Pair(nn.Module):
    student: Any
    teacher: Any

    def __init__(self) -> None:
        super().__init__()
        self.student = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.teacher = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


def step(executor: HookExecutor, state: TrainState) -> None:
    student: Any = state.model.student
    with torch.no_grad():
        for tensor in [*student.parameters(), student[1].running_mean]:
            tensor.add_(1.0)
    executor.fire("after_train_iter", state, batch_idx=0)


def test_the_teacher_starts_as_the_student_and_follows_it() -> None:
    model = Pair()
    state = TrainState(model)
    start = model.student[0].weight.detach().clone()

    with HookExecutor([MeanTeacherHook(momentum=0.25, interval=2)]) as executor:
        executor.fire("before_train", state)
        assert torch.equal(model.teacher[0].weight, start)
        step(executor, state)
        assert torch.equal(model.teacher[0].weight, start)
        step(executor, state)

    torch.testing.assert_close(model.teacher[0].weight, start + 0.25 * 2)
    assert not model.teacher[1].running_mean.any()


def test_buffers_follow_where_they_are_not_left_out() -> None:
    model = Pair()
    state = TrainState(model)

    with HookExecutor([MeanTeacherHook(momentum=0.25, skip_buffer=False)]) as executor:
        executor.fire("before_train", state)
        step(executor, state)

    assert model.teacher[1].running_mean.tolist() == [0.25, 0.25]
    assert model.teacher[1].num_batches_tracked == 0


def test_a_resumed_teacher_keeps_its_weights() -> None:
    model = Pair()
    state = TrainState(model)
    state._iter = 5
    before = model.teacher[0].weight.detach().clone()

    with HookExecutor([MeanTeacherHook()]) as executor:
        executor.fire("before_train", state)

    assert torch.equal(model.teacher[0].weight, before)


def test_a_model_without_the_pair_is_refused_before_training() -> None:
    other = Pair()
    other.teacher = nn.Sequential(nn.Linear(3, 2))
    with HookExecutor([MeanTeacherHook()]) as executor:
        with pytest.raises(ConfigError, match="Linear has no teacher"):
            executor.fire("before_train", TrainState(nn.Linear(1, 1)))
        with pytest.raises(ConfigError, match=r"teacher's 0.weight has the shape \(2, 3\)"):
            executor.fire("before_train", TrainState(other))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"momentum": 1}, ConfigError, "momentum lies between 0 and 1"),
        ({"interval": 0}, ConfigError, "interval is an int of at least 1"),
        ({"skip_buffers": True}, UnknownOptionError, "Did you mean 'skip_buffer'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        HOOKS.build({"type": "mmdet.MeanTeacherHook", **options})
