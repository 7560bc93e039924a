"""Saves that are copied while the run goes on hold what saves that stop the run hold, bit by bit."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from asynchooks.checkpoint import restore
from asynchooks.checkpoint._capture._staging import shared_staging
from asynchooks.errors import BackgroundHookError
from asynchooks.execution import Effects, Hook, HookExecutor, background
from asynchooks.hooks import CheckpointHook
from asynchooks.runner import Runner, TrainState
from asynchooks.runner._taking_up import load_weights
from asynchooks.testing import RecordingInstrument, late_copies

from .conftest import MakeRunner, Net


class Swap(Hook):
    """An EMA as MMEngine's hook does it: it takes the place of the weights while the run validates."""

    effects = Effects()

    def before_train(self, runner: Any) -> None:
        self.average = {k: v.clone() for k, v in runner.model.state_dict().items()}

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        for name, value in runner.model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 0.5)

    def before_val_epoch(self, runner: Any) -> None:
        self._swap(runner)

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
        self._swap(runner)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["ema_state_dict"] = self.average

    def _swap(self, runner: Any) -> None:
        for name, value in runner.model.state_dict().items():
            kept = value.clone()
            value.data.copy_(self.average[name])  # counts no version
            self.average[name].copy_(kept)


class Surgery(Hook):
    effects = Effects()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        runner.model.layers[0].weight.data[0, 0] += 1


class Merging(Net):
    """Changes weights when its mode changes, as LoRA layers do that merge theirs for evaluation."""

    def train(self, mode: bool = True) -> Merging:
        if mode != self.training:
            self.layers[0].weight.data.mul_(0.5 if mode else 3.0)  # type: ignore[operator]
        super().train(mode)
        return self


class End(Hook):
    """At the end no step comes any more for which a late copy would be made; this may change state, so it waits."""

    effects = Effects()

    def after_train(self, runner: Any) -> None:
        pass


def _saved(folder: Path) -> dict[str, Any]:
    return {path.name: restore(path) for path in sorted(folder.glob("*.pth"))}


def _run(make_runner: MakeRunner, folder: Path, *hooks: Hook, overlap: bool, **options: Any) -> Runner:
    save = CheckpointHook(interval=3, by_epoch=False, overlap=overlap, out_dir=folder)
    runner = make_runner(
        work_dir=folder,
        custom_hooks=[*hooks, save, CheckpointHook(interval=1, out_dir=folder), End()],
        **options,
    )
    with late_copies():
        runner.train()
    return runner


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return all(_is_same(value, other[key]) for key, value in one.items() if key not in _OWN)
    if isinstance(one, list | tuple):
        return all(map(_is_same, one, other))
    return bool(one == other)


_OWN = {"time", "experiment_name", "run_id", "last_ckpt", "message_hub"}


@pytest.mark.parametrize("by_epoch", [True, False])
@pytest.mark.parametrize(
    ("model", "hook"), [(Net, Swap), (Net, Surgery), (Merging, End)], ids=["swap", "surgery", "merge"]
)
def test_overlapped_saves_hold_what_saves_that_stop_the_run_hold(
    make_runner: MakeRunner, tmp_path: Path, model: type[Net], hook: type[Hook], *, by_epoch: bool
) -> None:
    found: list[dict[str, Any]] = []
    for overlap in (True, False):
        folder = tmp_path / f"overlap_{overlap}"
        torch.manual_seed(3)
        length = {"max_epochs": 2} if by_epoch else {"max_iters": 8, "val_interval": 3}
        optim = {
            "optimizer": {"type": "AdamW", "lr": 0.1},
            "accumulative_counts": 2,
            "clip_grad": {"max_norm": 1},
        }
        _run(
            make_runner,
            folder,
            hook(),
            overlap=overlap,
            model=model(),
            train_cfg={"by_epoch": by_epoch, **length},
            optim_wrapper=optim,
        )
        found.append(_saved(folder))

    assert found[0].keys() == found[1].keys()
    assert len(found[0]) >= 4
    for name in found[0]:
        assert _is_same(found[0][name], found[1][name]), name


def test_the_wait_before_a_step_is_in_the_trace_and_in_the_statistics(
    make_runner: MakeRunner, tmp_path: Path
) -> None:
    instrument = RecordingInstrument()
    save = CheckpointHook(interval=2, by_epoch=False, save_last=False)
    runner = make_runner(custom_hooks=[save, End()], instrument=instrument)

    with late_copies():
        runner.train()

    rows = runner.executor.statistics().of("CheckpointHook", "after_train_iter")
    assert {span.hook for span in instrument.of("stage")} == {"CheckpointHook"}
    assert rows[0].exposed_s > rows[0].stage_s > 0


def test_a_sync_run_overlaps_nothing(make_runner: MakeRunner) -> None:
    instrument = RecordingInstrument()
    save = CheckpointHook(interval=2, by_epoch=False)

    make_runner(custom_hooks=[save], instrument=instrument, mode="sync").train()

    assert not instrument.of("stage")


def test_a_torn_save_fails_aloud_and_commits_nothing(make_runner: MakeRunner, tmp_path: Path) -> None:
    class Careless(Swap):
        changes_state = False  # a lie

        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            nn.init.zeros_(runner.model.layers[0].weight)

        before_save_checkpoint = before_val_epoch = after_val_epoch = None  # type: ignore[assignment]

    save = CheckpointHook(interval=1, by_epoch=False, max_keep_ckpts=1)
    runner = make_runner(custom_hooks=[Careless(), save, End()])

    with (
        late_copies(),
        pytest.raises((BackgroundHookError, ExceptionGroup), match=r"CheckpointHook") as raised,
    ):
        runner.train()

    assert "was changed while it was still being copied" in str(raised.value.__cause__ or raised.value)
    assert not list((tmp_path / "run").glob("*.pth"))


@pytest.mark.parametrize("by_epoch", [True, False])
def test_memory_for_the_first_save_is_warm_after_the_first_iteration(
    make_runner: MakeRunner, *, by_epoch: bool
) -> None:
    class Looking(Hook):
        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            if runner.iter == 1:
                for thread in threading.enumerate():
                    if thread.name == "asynchooks prepare":
                        thread.join()
                found.append(shared_staging().free_bytes)

    class Wide(Net):
        def __init__(self) -> None:
            super().__init__()
            self.wide = nn.Parameter(torch.ones(3_000_000))

    found: list[int] = []
    length = {"max_epochs": 1} if by_epoch else {"max_iters": 3}
    make_runner(
        model=Wide(),
        custom_hooks=[CheckpointHook(interval=3, by_epoch=by_epoch), Looking()],
        train_cfg={"by_epoch": by_epoch, **length},
        val_dataloader=None,
    ).train()

    assert found[0] >= 4 * 3_000_000


def test_loading_weights_waits_for_the_copy(tmp_path: Path) -> None:
    class Capturing(Hook):
        changes_state = False

        @background
        def after_train_iter(
            self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> Any:
            snapshots.append(runner.capture())

    snapshots: list[Any] = []
    model = nn.Linear(2, 2)
    before = model.weight.detach().clone()
    state = TrainState(model, torch.optim.SGD(model.parameters(), lr=0.1), work_dir=tmp_path)
    with late_copies(), HookExecutor([Capturing()]) as executor:
        executor.fire("after_train_iter", state, batch_idx=0)
        load_weights(model, {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}, "somewhere", strict=True)

    assert torch.equal(snapshots[0].state["state_dict"]["weight"], before)
    assert model.weight.sum() == 0


def test_two_hooks_of_one_firing_share_one_copy(make_runner: MakeRunner) -> None:
    class Capturing(Hook):
        effects = Effects()
        changes_state = False
        priority = "VERY_LOW"

        @background
        def after_train_iter(
            self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> Any:
            snapshots.append(runner.capture())
            staged.append(runner.executor.statistics().staged_bytes)

            async def keep() -> None:
                return

            return keep

    snapshots: list[Any] = []
    staged: list[int] = []
    runner = make_runner(
        custom_hooks=[Capturing(), Capturing()],
        train_cfg={"by_epoch": False, "max_iters": 1},
        val_dataloader=None,
    )
    runner.train()

    one, other = (snapshot.state["state_dict"]["layers.0.weight"] for snapshot in snapshots)
    assert one.data_ptr() == other.data_ptr()
