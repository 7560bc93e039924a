"""A small run for the tests of the Runner on ranks: a model, its data, and what a run leaves to compare."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asynchooks import Hook, Runner

DATA = [(torch.full((4,), float(i)).sin(), torch.tensor([float(i % 3)])) for i in range(24)]


class Net(nn.Module):
    """Returns its loss; has blocks, dropout and a buffer."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4, 1)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x = batch[0]
        for block in self.blocks:
            x = self.dropout(torch.tanh(block(x)))
        loss: Tensor = ((self.head(x) - batch[1]) ** 2).mean()
        return loss


class StepNet(Net):
    """Defines the training step itself, as MMEngine's models do."""

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        with optim_wrapper.optim_context(self):
            loss = self(data)
        optim_wrapper.update_params(loss)
        return {"loss": loss.detach()}


class Losses(Hook):
    """Keeps the losses of this rank."""

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self.values: list[float] = []

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.values.append(float(outputs["loss"]))


class Lines(logging.Handler):
    """Keeps what the package logs on this rank."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        logging.getLogger("asynchooks").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def seeded(kind: type[nn.Module], **options: Any) -> nn.Module:
    """A model with the weights of seed 0."""
    torch.manual_seed(0)
    return kind(**options)


def run_of(
    folder: str | Path, *, batch_size: int = 4, model: nn.Module | None = None, **options: Any
) -> Runner:
    """A run of two epochs without checkpoints; the first rank's weights are those of seed 0."""
    torch.manual_seed(0)
    return Runner(
        **{
            "model": model or seeded(Net),
            "work_dir": str(folder),
            "train_dataloader": {
                "dataset": DATA,
                "batch_size": batch_size,
                "sampler": {"type": "DefaultSampler", "shuffle": True},
            },
            "train_cfg": {"by_epoch": True, "max_epochs": 2},
            "optim_wrapper": {"optimizer": {"type": "AdamW", "lr": 0.01}},
            "default_hooks": {"checkpoint": None, "logger": None},
            "visualizer": {"vis_backends": []},
            **options,
        }
    )


def weights(model: nn.Module) -> dict[str, list[float]]:
    """The whole weights and buffers of a model as numbers. A collective for a sharded model."""
    state = model.state_dict()
    whole = {name: t.full_tensor() if hasattr(t, "full_tensor") else t for name, t in state.items()}
    return {name: tensor.flatten().tolist() for name, tensor in whole.items()}


def trained(folder: str | Path, **options: Any) -> tuple[list[float], dict[str, list[float]], dict[str, Any]]:
    """Train; return the rank's losses, the whole weights and the metrics."""
    losses = Losses()
    runner = run_of(folder, custom_hooks=[losses, *options.pop("custom_hooks", [])], **options)
    runner.train()
    return losses.values, weights(runner.model), dict(runner.metrics)
