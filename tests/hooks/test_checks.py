"""Losses that are no numbers, classes that do not fit, models that are told something."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from asynchooks.errors import ClassCountError, InvalidLossError
from asynchooks.hooks import (
    CheckInvalidLossHook,
    NumClassCheckHook,
    SetEpochInfoHook,
    SwitchToDeployHook,
)


def iteration(number: int) -> SimpleNamespace:
    return SimpleNamespace(iter=number - 1, epoch=0)


def test_an_invalid_loss_ends_the_training_and_is_named() -> None:
    hook = CheckInvalidLossHook(interval=5)
    outputs = {"loss": torch.tensor(float("nan")), "loss_cls": torch.tensor([float("inf")]), "loss_box": 1.0}
    hook.after_train_iter(iteration(4), 3, outputs=outputs)

    with pytest.raises(AssertionError, match=r"iteration 5 .*loss is nan, loss_cls is \[inf\]\.") as caught:
        hook.after_train_iter(iteration(5), 4, outputs=outputs)
    assert isinstance(caught.value, InvalidLossError | FloatingPointError)
    assert "loss_box" not in str(caught.value)


@pytest.mark.parametrize("outputs", [torch.tensor(1.0), {"loss": 0.5}, {"loss": torch.ones(3)}])
def test_a_finite_loss_passes(outputs: Any) -> None:
    CheckInvalidLossHook(interval=1).after_train_iter(iteration(1), 0, outputs=outputs)


def test_a_step_without_a_loss_is_said() -> None:
    with pytest.raises(ValueError, match=r"no 'loss' but \['acc'\]"):
        CheckInvalidLossHook(interval=1).after_train_iter(iteration(1), 0, outputs={"acc": 1.0})


def test_interval_must_be_an_int_and_may_say_never() -> None:
    wrong: Any = "50"
    with pytest.raises(TypeError, match="interval='50'"):
        CheckInvalidLossHook(wrong)
    CheckInvalidLossHook(0).after_train_iter(iteration(1), 0, outputs=torch.tensor(float("nan")))


class Head(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes


class VGG(Head):
    """Named like the backbone."""


def run_of(dataset: Any, **modules: nn.Module) -> SimpleNamespace:
    warnings: list[Any] = []
    loader = SimpleNamespace(dataset=dataset)
    return SimpleNamespace(
        model=nn.ModuleDict(modules),
        train_dataloader=loader,
        val_dataloader=loader,
        logger=SimpleNamespace(warning=lambda *args: warnings.append(args)),
        warnings=warnings,
    )


def with_classes(*classes: str) -> SimpleNamespace:
    return SimpleNamespace(metainfo={"classes": classes})


def test_a_head_with_other_classes_than_the_data_is_an_error() -> None:
    run = run_of(with_classes("cat", "dog"), head=Head(3))
    for check in (NumClassCheckHook().before_train_epoch, NumClassCheckHook().before_val_epoch):
        with pytest.raises(AssertionError, match=r"num_classes=3 of head \(Head\).*has 2 classes"):
            check(run)
    NumClassCheckHook().before_train_epoch(run_of(with_classes("a", "b", "c"), head=Head(3)))


def test_what_counts_something_else_is_left_out() -> None:
    run = run_of(with_classes("cat"), rpn_head=Head(9), backbone=VGG(1000))
    NumClassCheckHook().before_train_epoch(run)

    assert run.warnings == []


def test_classes_that_are_a_string_are_an_error() -> None:
    with pytest.raises(ClassCountError, match=r"give a tuple: \('cat',\)"):
        NumClassCheckHook().before_train_epoch(run_of(SimpleNamespace(metainfo={"classes": "cat"})))


def test_older_data_sets_name_their_classes_by_an_attribute() -> None:
    run = run_of(SimpleNamespace(CLASSES=("cat", "dog")), head=Head(3))

    with pytest.raises(ClassCountError):
        NumClassCheckHook().before_train_epoch(run)


@pytest.mark.parametrize("dataset", [SimpleNamespace(metainfo={}), [1, 2]])
def test_data_that_name_no_classes_are_a_warning_once(dataset: Any) -> None:
    run, hook = run_of(dataset, head=Head(3)), NumClassCheckHook()
    hook.before_train_epoch(run)
    hook.before_train_epoch(run)

    assert len(run.warnings) == 1


class Curriculum(nn.Module):
    epoch = -1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


@pytest.mark.parametrize("wrap", [False, True])
def test_the_model_is_told_the_epoch_inside_a_wrapper_too(wrap: bool) -> None:
    model = Curriculum()
    run = SimpleNamespace(model=nn.DataParallel(model) if wrap else model, epoch=3)
    hook = SetEpochInfoHook()
    hook.before_train(run)
    hook.before_train_epoch(run)

    assert model.epoch == 3


def test_a_model_that_cannot_be_told_is_said_before_the_training() -> None:
    with pytest.raises(ValueError, match=r"Linear has no method set_epoch"):
        SetEpochInfoHook().before_train(SimpleNamespace(model=nn.Linear(1, 1)))


class Block(nn.Module):
    def __init__(self, *children: nn.Module) -> None:
        super().__init__()
        self.inside = nn.ModuleList(children)
        self.switched = 0

    def switch_to_deploy(self) -> None:
        self.switched += 1


def test_blocks_are_switched_before_a_test_and_what_is_inside_is_left_to_them() -> None:
    inner = Block()
    blocks = [Block(), Block(inner)]
    infos: list[Any] = []
    logger = SimpleNamespace(info=lambda *args: infos.append(args))
    SwitchToDeployHook().before_test_epoch(SimpleNamespace(model=nn.Sequential(*blocks), logger=logger))

    assert [block.switched for block in blocks] == [1, 1]
    assert inner.switched == 0
    assert len(infos) == 1
