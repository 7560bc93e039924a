"""A training in miniature: a real loop, a real executor, real stores."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
from torch import nn

from asynchooks.execution import Hook, HookExecutor
from asynchooks.runner import TrainState

Metrics = Sequence[Mapping[str, Any] | None]


class Train(Protocol):
    """Trains a small model and returns its state."""

    def __call__(
        self,
        *hooks: Hook,
        epochs: int = ...,
        iters: int = ...,
        metrics: Metrics = ...,
        mode: Any = ...,
        state: TrainState | None = ...,
        work_dir: str | Path | None = ...,
        **executor_options: Any,
    ) -> TrainState: ...


@pytest.fixture
def make_state(tmp_path: Path) -> Callable[..., TrainState]:
    """Make the state of a training that always starts from the same weights."""

    def make(work_dir: str | Path | None = None, *, epochs: int = 4, iters: int = 2) -> TrainState:
        torch.manual_seed(0)
        model = nn.Linear(4, 2)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        return TrainState(
            model=model,
            optimizer=optimizer,
            param_schedulers=[torch.optim.lr_scheduler.StepLR(optimizer, 1)],
            train_dataloader=range(iters),
            max_epochs=epochs,
            work_dir=work_dir or tmp_path / "run",
        )

    return make


@pytest.fixture
def train(make_state: Callable[..., TrainState]) -> Train:
    """Train, firing the points of a run in their order; ``metrics`` has one validation per epoch."""

    def run(
        *hooks: Hook,
        epochs: int = 4,
        iters: int = 2,
        metrics: Metrics = (),
        mode: Any = "async",
        state: TrainState | None = None,
        work_dir: str | Path | None = None,
        **executor_options: Any,
    ) -> TrainState:
        state = state or make_state(work_dir, epochs=epochs, iters=iters)
        with HookExecutor(hooks, mode=mode, **executor_options) as executor:
            executor.fire("before_run", state)
            executor.fire("before_train", state)
            while state.epoch < epochs:
                _run_epoch(executor, state, iters)
                if state.epoch <= len(metrics):
                    _validate(executor, state, metrics[state.epoch - 1])
            executor.fire("after_train", state)
            executor.drain()
            executor.fire("after_run", state)
        return state

    return run


def _run_epoch(executor: HookExecutor, state: TrainState, iters: int) -> None:
    executor.fire("before_train_epoch", state)
    for index in range(iters):
        batch = torch.full((1, 4), float(state.iter))
        executor.fire("before_train_iter", state, batch_idx=index, data_batch=batch)
        loss = state.model(batch).square().mean()
        state.optim_wrapper.update_params(loss)
        outputs = {"loss": loss.detach()}
        executor.fire("after_train_iter", state, batch_idx=index, data_batch=batch, outputs=outputs)
    executor.fire("after_train_epoch", state)


def _validate(executor: HookExecutor, state: TrainState, metrics: Mapping[str, Any] | None) -> None:
    executor.fire("before_val", state)
    executor.fire("before_val_epoch", state)
    executor.fire("before_val_iter", state, batch_idx=0)
    executor.fire("after_val_iter", state, batch_idx=0, outputs=None)
    executor.fire("after_val_epoch", state, metrics=metrics)
    executor.fire("after_val", state)


@pytest.fixture
def names() -> Callable[[Path], list[str]]:
    """List the checkpoints in a folder: neither manifests nor pointers nor logs."""

    def list_names(folder: Path) -> list[str]:
        found: Iterable[Path] = folder.iterdir() if folder.exists() else ()
        return sorted(path.name for path in found if path.suffix == ".pth")

    return list_names
