"""Any loop of one's own: `HookExecutor` and `TrainState` without a Runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from asynchooks.checkpoint import find_latest, list_checkpoints
from asynchooks.errors import LiveStateError, UnknownOptionError
from asynchooks.execution import Effects, Hook, HookExecutor
from asynchooks.hooks import CheckpointHook, LoggerHook
from asynchooks.runner import TrainState

from .conftest import Net, Noisy


def train(state: TrainState, hooks: list[Any], steps: int, mode: Any = "async") -> None:
    loader = DataLoader(Noisy(40), batch_size=4)
    with HookExecutor(hooks, mode=mode) as executor:
        for step, batch in enumerate(loader):
            if step >= steps:
                break
            executor.fire("before_train_iter", state, batch_idx=step, data_batch=batch)
            loss = state.model(batch)
            loss.backward()
            assert state.optimizer is not None
            state.optimizer.step()
            state.optimizer.zero_grad()
            outputs = {"loss": loss.detach()}
            executor.fire("after_train_iter", state, batch_idx=step, data_batch=batch, outputs=outputs)


@pytest.fixture
def state(tmp_path: Path) -> TrainState:
    torch.manual_seed(0)
    net = Net()
    return TrainState(
        model=net, optimizer=torch.optim.Adam(net.parameters(), lr=0.01), work_dir=tmp_path / "work"
    )


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_a_loop_of_ones_own_logs_and_saves(
    state: TrainState, tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    out_dir = str(tmp_path / "runs")
    hooks = [
        LoggerHook(interval=2),
        CheckpointHook(interval=2, by_epoch=False, out_dir=out_dir, max_keep_ckpts=2),
    ]

    with caplog.at_level("INFO"):
        train(state, hooks, 6, mode)

    assert state.iter == 6
    assert [info.step for info in list_checkpoints(f"{out_dir}/work")] == [4, 6]
    assert "Iter(train) [6]  " in caplog.text
    assert "loss: " in caplog.text


def test_counters_follow_the_firings(state: TrainState) -> None:
    with HookExecutor() as executor:
        for _ in range(2):
            executor.fire("before_train_epoch", state)
            executor.fire("after_train_iter", state, batch_idx=0)
            executor.fire("after_train_iter", state, batch_idx=1)
            executor.fire("after_train_epoch", state)

    assert (state.epoch, state.iter) == (2, 4)


def test_a_saved_loop_goes_on_where_it_was(state: TrainState, tmp_path: Path) -> None:
    out_dir = str(tmp_path / "runs")
    train(state, [CheckpointHook(interval=3, by_epoch=False, out_dir=out_dir)], 3)
    expected = [p.detach().clone() for p in state.model.parameters()]
    latest = find_latest(f"{out_dir}/work")
    assert latest is not None

    net = Net()
    resumed = TrainState(model=net, optimizer=torch.optim.Adam(net.parameters(), lr=0.01), work_dir=tmp_path)
    resumed.resume(latest.url)

    assert resumed.iter == 3
    assert all(torch.equal(a, b) for a, b in zip(expected, net.parameters(), strict=True))
    assert resumed.optimizer is not None
    assert len(resumed.optimizer.state_dict()["state"]) == len(expected)


def test_a_snapshot_of_a_loop_does_not_change_with_it(state: TrainState) -> None:
    snapshot = state.capture()
    assert snapshot is not None
    before = {k: v.clone() for k, v in snapshot.state["state_dict"].items()}

    train(state, [], 3)

    assert all(torch.equal(before[k], v) for k, v in snapshot.state["state_dict"].items())


def test_limits_are_derived_from_the_loader(state: TrainState) -> None:
    limited = TrainState(model=state.model, max_epochs=3, train_dataloader=[1, 2, 3, 4])

    assert (limited.max_iters, limited.by_epoch) == (12, True)
    assert (state.max_iters, state.max_epochs, state.by_epoch) == (None, None, False)


def test_background_code_is_told_not_to_touch_the_model(state: TrainState) -> None:
    class Toucher(Hook):
        effects = Effects()

        async def after_train_iter(
            self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> None:
            runner.model.train()

    with pytest.raises(Exception, match=r"Toucher\.after_train_iter") as caught:
        train(state, [Toucher()], 1)

    assert isinstance(caught.value.__cause__, LiveStateError)


def test_a_wrong_argument_names_the_right_one(state: TrainState) -> None:
    with pytest.raises(UnknownOptionError, match=r"'optimiser'.*Did you mean 'optimizer'"):
        TrainState(model=state.model, optimiser=None)
