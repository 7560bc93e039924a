"""Rules that keep faults of the references out, where no other test states them.

`test_reference_faults.py` has the table of all of them.
"""

from __future__ import annotations

import inspect
import re
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from asynchooks.checkpoint import list_checkpoints, restore
from asynchooks.execution import POINTS, Effects, Hook, HookExecutor
from asynchooks.execution._hook import shape_of
from asynchooks.hooks import CheckpointHook, EarlyStoppingHook, SyncNormHook, SyncRandomSizeHook
from asynchooks.registry import HOOKS
from asynchooks.runner import MessageHub, Runner
from asynchooks.runner.mmcv import EpochBasedRunner, IterBasedRunner


class Numbers(Dataset[Tensor]):
    """Samples that remember who asked for them."""

    def __init__(self) -> None:
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Tensor:
        self.loaded.append(index)
        return torch.full((2,), float(index))


class Net(nn.Linear):
    """Its loss is that of its input."""

    def __init__(self) -> None:
        super().__init__(2, 1)

    def forward(self, batch: Tensor) -> Tensor:
        return super().forward(batch).square().mean()


@pytest.fixture
def runner(tmp_path: Path) -> Callable[..., Runner]:
    def make(*hooks: Any, **options: Any) -> Runner:
        torch.manual_seed(0)
        defaults: dict[str, Any] = {
            "train_dataloader": DataLoader(Numbers(), batch_size=2),
            "val_dataloader": DataLoader(Numbers(), batch_size=4),
            "train_cfg": {"by_epoch": True, "max_epochs": 2},
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.01}},
            "default_hooks": {"logger": None, "checkpoint": None},
        }
        return Runner(model=Net(), work_dir=tmp_path, custom_hooks=list(hooks), **{**defaults, **options})

    return make


def test_what_a_hook_puts_into_a_checkpoint_is_copied(runner: Any, tmp_path: Path) -> None:
    live = torch.zeros(3)

    class Putting(Hook):
        effects = Effects()

        def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
            checkpoint["mine"] = {"tensor": live, "weights": runner.model.weight}

        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            live.add_(1)

    run = runner(Putting(), CheckpointHook(interval=1))
    run.train()
    first, last = (restore(tmp_path / f"epoch_{number}.pth") for number in (1, 2))

    assert (first["mine"]["tensor"][0], last["mine"]["tensor"][0]) == (4, 8)
    assert torch.equal(first["mine"]["weights"], first["state_dict"]["weight"])
    assert not torch.equal(first["mine"]["weights"], run.model.weight)


def test_a_validation_before_any_training_saves_nothing(runner: Any, tmp_path: Path) -> None:
    runner(CheckpointHook(save_best="loss")).val()

    assert list_checkpoints(tmp_path) == []


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_a_hook_of_a_lower_priority_that_reads_checkpoints_finds_the_file(
    runner: Any, tmp_path: Path, mode: str
) -> None:
    found: list[bool] = []

    class Uploading(Hook):
        priority = 95
        effects = Effects(reads={"checkpoints"})

        def after_train_epoch(self, runner: Any) -> None:
            found.append(
                torch.load(tmp_path / f"epoch_{runner.epoch + 1}.pth")["meta"]["epoch"] == len(found) + 1
            )

    runner(CheckpointHook(interval=1), Uploading(), mode=mode).train()

    assert found == [True, True]


def test_a_hooks_error_keeps_its_frames_and_names_the_hook() -> None:
    def the_users_own_mistake() -> None:
        try:
            raise KeyError("key")
        except KeyError as error:
            raise TypeError("a wrong type, deep inside") from error

    class Mistaken(Hook):
        def before_train(self, runner: Any) -> None:
            the_users_own_mistake()

    with HookExecutor([Mistaken()]) as executor, pytest.raises(TypeError, match="deep inside") as caught:
        executor.fire("before_train", None)
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]

    assert frames[-1] == "the_users_own_mistake"
    assert isinstance(caught.value.__cause__, KeyError)
    assert any("Mistaken.before_train" in note for note in caught.value.__notes__)


def test_a_test_builds_no_training(runner: Any) -> None:
    class NoTraining(Numbers):
        def __len__(self) -> int:
            raise AssertionError("the training's data are looked at")

    built = {"dataset": {"type": NoTraining}, "batch_size": 2}
    run = runner(EarlyStoppingHook("loss"), train_dataloader=built, test_dataloader=DataLoader(Numbers()))

    assert set(run.test()) == {"loss"}


def test_a_look_up_that_fails_holds_no_lock() -> None:
    with pytest.raises(KeyError):
        HOOKS.get("NoSuchHook")
    with pytest.raises(KeyError):
        MessageHub("a").get_scalar("nothing")
    found: list[Any] = []
    thread = threading.Thread(
        target=lambda: found.append((HOOKS.get("CheckpointHook"), MessageHub("a").state_dict()))
    )
    thread.start()
    thread.join(30)

    assert found


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_run_that_fails_commits_what_is_in_flight(runner: Any, tmp_path: Path, error: Any) -> None:
    class Failing(Hook):
        effects = Effects()

        def before_train_epoch(self, runner: Any) -> None:
            if runner.epoch == 1:
                raise error("no more")

    with pytest.raises(error, match="no more"):
        runner(CheckpointHook(interval=1), Failing()).train()

    assert [info.name for info in list_checkpoints(tmp_path)] == ["epoch_1.pth"]
    assert restore(tmp_path / "epoch_1.pth")["meta"]["epoch"] == 1


def test_a_metric_that_was_never_there_keeps_no_other_from_being_published(
    runner: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hook = CheckpointHook(save_best=["loss", "acc"], published_keys=["state_dict"], save_last=False)
    runner(hook, train_cfg={"max_epochs": 1}).train()

    published = [path.name for path in tmp_path.glob("*.pth") if re.search(r"-[0-9a-f]{8}\.pth", path.name)]
    assert len(published) == 1
    assert "acc is not among this validation's metrics" in caplog.text


def test_a_rule_without_a_metric_is_said_in_words() -> None:
    with pytest.raises(ValueError, match="a rule needs the metric, in save_best"):
        CheckpointHook(rule=["greater"])


def test_a_refused_begin_is_in_the_message() -> None:
    with pytest.raises(ValueError, match="save_begin=-3"):
        CheckpointHook(save_begin=-3)


@pytest.mark.parametrize("name", HOOKS.names())
def test_no_default_value_of_a_hooks_method_is_a_type(name: str) -> None:
    hook: Any = HOOKS.get(name)
    for point in (point for point in POINTS if hasattr(hook, point)):  # MMCV's have fewer
        for parameter in inspect.signature(getattr(hook, point)).parameters.values():
            assert parameter.default in (parameter.empty, None, 0), f"{point}({parameter})"


def test_a_run_that_saves_its_best_alone_can_be_resumed(runner: Any) -> None:
    def hook() -> CheckpointHook:
        return CheckpointHook(interval=-1, save_last=False, save_best="loss", save_best_full=True)

    runner(hook()).train()
    resumed = runner(hook(), resume=True, train_cfg={"max_epochs": 3})
    resumed.train()

    assert resumed.iter == 12
    assert resumed.message_hub.get_info("best_score") is not None


class OldNet(Net):
    """A model in MMCV's manner."""

    def train_step(self, data: Tensor, optimizer: Any, **_: Any) -> dict[str, Any]:
        loss = self(data)
        return {"loss": loss, "log_vars": {"loss": loss.detach()}, "num_samples": len(data)}


def test_nothing_in_a_run_sleeps(runner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    runner().train()
    loader = DataLoader(Numbers(), batch_size=2)
    EpochBasedRunner(OldNet(), work_dir=str(tmp_path), max_epochs=2).run([loader], [("train", 1)])
    IterBasedRunner(OldNet(), work_dir=str(tmp_path), max_iters=6).run([loader], [("train", 1)])

    assert slept == []


def test_a_resumed_run_of_iterations_loads_nothing_that_it_skips(runner: Any) -> None:
    cfg = {"by_epoch": False, "max_iters": 6, "val_interval": 99}
    hook = CheckpointHook(interval=6, by_epoch=False)
    runner(hook, train_cfg=cfg).train()
    data = Numbers()
    loader = DataLoader(data, batch_size=2)
    runner(hook, train_cfg={**cfg, "max_iters": 8}, train_dataloader=loader, resume=True).train()

    assert data.loaded == [4, 5, 6, 7]


COLLECTIVE = re.compile(r"\b(all_reduce|all_gather|broadcast|barrier)\w*\(")


def test_hooks_with_collectives_block() -> None:
    """In every rank's program order, on the training thread; and in no point that one rank alone fires."""
    found: list[Any] = [HOOKS.get(name) for name in HOOKS.names()]
    kinds = [
        kind for kind in found if kind.__module__.startswith("asynchooks.")
    ]  # other tests register their own
    talking = [kind for kind in kinds if COLLECTIVE.search(inspect.getsource(sys.modules[kind.__module__]))]
    own = {
        kind: [p for p in POINTS if getattr(kind, p, getattr(Hook, p)) is not getattr(Hook, p)]
        for kind in talking
    }

    assert {SyncNormHook, SyncRandomSizeHook} <= own.keys()
    for kind, points in own.items():
        assert {shape_of(getattr(kind, point)) for point in points} == {"blocking"}, kind
        assert "before_save_checkpoint" not in points, kind
