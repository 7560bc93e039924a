from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch
import torchmetrics
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, Hook
from asynchooks.runner import Runner
from asynchooks.runner._steps import losses_of, to_device

from .conftest import MakeRunner

DATA = TensorDataset(torch.arange(10.0)[:, None], torch.arange(10) % 2)
LOADERS: dict[str, Any] = {
    "train_dataloader": DataLoader(DATA, batch_size=4),
    "val_dataloader": DataLoader(DATA, batch_size=4),
    "train_cfg": {"max_epochs": 1},
}


class Returning(nn.Module):
    """Returns from its forward what a function makes of its scalar output."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.make = make

    def forward(self, batch: list[Tensor]) -> Any:
        return self.make((self.weight * batch[0]).mean())


class Stepping(nn.Module):
    """Has steps of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 2)
        self.steps: list[str] = []

    def train_step(self, data: list[Tensor], optim_wrapper: Any) -> dict[str, Tensor]:
        self.steps.append("train")
        with optim_wrapper.optim_context(self):
            loss = nn.functional.cross_entropy(self.linear(data[0]), data[1])
        optim_wrapper.update_params(loss)
        return {"loss": loss.detach()}

    def val_step(self, data: list[Tensor]) -> tuple[Tensor, Tensor]:
        self.steps.append("val")
        return self.linear(data[0]), data[1]

    test_step = val_step


class Outputs(Hook):
    effects = Effects()

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.seen.append(outputs)


@pytest.mark.parametrize(
    ("make", "logged"),
    [
        (lambda x: x, {"loss": 1.5}),
        (lambda x: {"loss": x, "acc": torch.tensor(0.5)}, {"loss": 1.5, "acc": 0.5}),
        (lambda x: {"loss_a": x, "loss_b": 2 * x}, {"loss": 4.5, "loss_a": 1.5, "loss_b": 3.0}),
        (lambda x: {"loss": x, "loss_b": 2 * x}, {"loss": 1.5, "loss_b": 3.0}),
        (lambda x: {"loss_a": [x, x], "size": 3}, {"loss": 3.0, "loss_a": 3.0, "size": 3}),
        (lambda x: x.reshape(1), {"loss": 1.5}),
    ],
)
def test_a_plain_module_trains_on_the_loss_that_it_returns(
    make_runner: MakeRunner, make: Any, logged: dict[str, float]
) -> None:
    outputs = Outputs()
    runner = make_runner(model=Returning(make), custom_hooks=[outputs], **LOADERS)

    runner.train()

    first = outputs.seen[0]
    assert {name: float(value) for name, value in first.items()} == logged
    assert not any(getattr(value, "requires_grad", False) for value in first.values())
    assert next(runner.model.parameters()).item() < 1.0
    assert set(runner.metrics) >= {"loss"}


@pytest.mark.parametrize("made", [None, torch.zeros(3), {"accuracy": 1.0}, "loss"])
def test_a_forward_without_a_loss_is_named(make_runner: MakeRunner, made: Any) -> None:
    with pytest.raises(ConfigError, match=r"Returning has no train_step.*forward"):
        make_runner(model=Returning(lambda _: made), **LOADERS).train()


def test_a_models_own_steps_are_called(make_runner: MakeRunner) -> None:
    model = Stepping()

    make_runner(model=model, **LOADERS).train()

    assert model.steps == ["train"] * 3 + ["val"] * 3


def test_the_validation_loss_is_the_mean_over_samples(make_runner: MakeRunner) -> None:
    runner = make_runner(model=Returning(lambda x: {"loss": x, "loss_twice": 2 * x}), **LOADERS)

    metrics = runner.val()

    assert metrics == {"loss": 4.5, "loss_twice": 9.0}  # unequal batches: 4, 4 and 2 samples


def test_a_torchmetric_is_updated_with_the_steps_outputs(make_runner: MakeRunner) -> None:
    accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=2)
    model = Stepping()
    runner = make_runner(model=model, val_evaluator={"acc": accuracy}, **LOADERS)

    metrics = runner.val()

    logits = model.linear(DATA.tensors[0])
    assert metrics == {"acc": pytest.approx((logits.argmax(1) == DATA.tensors[1]).float().mean().item())}
    assert runner.val() == metrics


def test_an_evaluator_of_mmengines_protocol_sees_batches_and_the_size(make_runner: MakeRunner) -> None:
    class Counting:
        def __init__(self) -> None:
            self.samples = 0

        def process(self, data_batch: Any, data_samples: Any) -> None:
            self.samples += len(data_samples[0])

        def evaluate(self, size: int) -> dict[str, int]:
            return {"samples": self.samples, "size": size}

    metrics = make_runner(model=Stepping(), val_evaluator=[Counting()], **LOADERS).val()

    assert metrics == {"samples": 10, "size": 10}


def test_a_function_gives_means_over_samples(make_runner: MakeRunner) -> None:
    def accuracy(outputs: tuple[Tensor, Tensor], batch: Any) -> dict[str, Tensor]:
        return {"first": batch[0].mean()}

    metrics = make_runner(
        model=Stepping(), test_dataloader=LOADERS["val_dataloader"], test_evaluator=accuracy, **LOADERS
    ).test()

    assert metrics == {"first": 4.5}


def test_evaluating_needs_no_gradients_and_no_training_mode(make_runner: MakeRunner) -> None:
    seen = []

    class Watching(Returning):
        def forward(self, batch: list[Tensor]) -> Any:
            seen.append((self.training, torch.is_grad_enabled()))
            return super().forward(batch)

    make_runner(model=Watching(lambda x: x), **LOADERS).train()

    assert set(seen[:3]) == {(True, True)}
    assert set(seen[3:]) == {(False, False)}


def test_gradient_norms_reach_the_message_hub(make_runner: MakeRunner) -> None:
    wrapper = {"optimizer": {"type": "SGD", "lr": 0.1}, "clip_grad": {"max_norm": 1.0}}
    runner = make_runner(model=Returning(lambda x: x), optim_wrapper=wrapper, **LOADERS)

    runner.train()

    assert runner.message_hub.get_scalar("train/grad_norm").data[0].tolist() == [1.5, 5.5, 8.5]


def test_batches_of_any_nesting_are_moved() -> None:
    pair = namedtuple("pair", "image label")  # noqa: PYI024 - what users have
    batch = {"a": [torch.zeros(1), "text"], "b": (pair(torch.zeros(1), 3), None)}

    moved = to_device(batch, torch.device("meta"))

    assert moved["a"][0].is_meta
    assert moved["b"][0].image.is_meta
    assert (moved["a"][1], moved["b"][0].label, moved["b"][1]) == ("text", 3, None)


def test_a_loss_that_is_no_tensor_is_named() -> None:
    with pytest.raises(ConfigError, match="The loss 'loss_a'"):
        losses_of({"loss_a": "much"})


def test_an_empty_loader_is_an_error_where_it_would_hang(make_runner: MakeRunner) -> None:
    with pytest.raises(ConfigError, match="yields no batch"):
        make_runner(train_dataloader=[], train_cfg={"by_epoch": False, "max_iters": 2}).train()


def test_metrics_are_in_the_view_for_background_hooks(make_runner: MakeRunner) -> None:
    seen = []

    class Reader(Hook):
        effects = Effects()

        async def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
            seen.append((runner.metrics["loss"], runner.scalars["train/loss"], runner.iter))

    runner: Runner = make_runner(model=Returning(lambda x: x), custom_hooks=[Reader()], **LOADERS)
    runner.train()

    assert seen == [(runner.metrics["loss"], runner.message_hub.get_scalar("train/loss").current(), 3)]
