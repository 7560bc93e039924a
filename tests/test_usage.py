"""The ways in which users of MMEngine write a run, with our names: each works as written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from asynchooks import HOOKS, Hook, HookExecutor, TrainState
from asynchooks.checkpoint import list_checkpoints, restore
from asynchooks.errors import AsyncHooksError, ConfigError
from asynchooks.hooks import CheckpointHook, IterTimerHook, LoggerHook
from asynchooks.registry import Registry
from asynchooks.runner import Runner


class Net(nn.Module):
    """A plain model: ``forward(batch)`` returns a dict of losses."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, batch: list[Tensor]) -> dict[str, Tensor]:
        error = self.linear(batch[0]) - batch[1]
        return {"loss_square": error.square().mean(), "loss_absolute": error.abs().mean()}


def loader(batches: int = 4) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    data = [
        (torch.randn(4, generator=generator), torch.randn(1, generator=generator)) for _ in range(batches * 2)
    ]
    return DataLoader(data, batch_size=2)  # type: ignore[arg-type]  # a list will do


def runner(work_dir: Path, **options: Any) -> Runner:
    given: dict[str, Any] = {
        "model": Net(),
        "work_dir": work_dir,
        "train_dataloader": loader(),
        "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.001, "momentum": 0.9}},
        "train_cfg": {"by_epoch": True, "max_epochs": 3},
        "log_level": "WARNING",
    }
    return Runner(**(given | options))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".pth")


@HOOKS.register_module()
class UsageInvalidLossHook(Hook):
    """The custom hook of MMEngine's tutorial."""

    effects = None
    priority = "ABOVE_NORMAL"

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval
        self.checked = 0

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if self.every_n_train_iters(runner, self.interval):
            assert torch.isfinite(outputs["loss"]), "loss became infinite or NaN!"
            self.checked += 1


def test_defaults_custom_hooks_priorities_and_a_removed_default(tmp_path: Path) -> None:
    run = runner(
        tmp_path,
        default_hooks={
            "runtime_info": {"type": "RuntimeInfoHook"},
            "timer": None,
            "sampler_seed": {"type": "DistSamplerSeedHook"},
            "logger": {"type": "LoggerHook", "interval": 20},
            "param_scheduler": {"type": "ParamSchedulerHook"},
            "checkpoint": {"type": "CheckpointHook", "interval": 5},
        },
        custom_hooks=[{"type": "UsageInvalidLossHook", "interval": 2, "priority": "ABOVE_NORMAL"}],
    )

    class Mine(Hook):
        pass

    run.register_hook(Mine(), priority=48)
    order = [
        (type(hook).__name__, r.priority)
        for hook, r in zip(run.executor.hooks, run.executor.registered, strict=True)
    ]
    run.train()

    assert order == [
        ("RuntimeInfoHook", 10),
        ("UsageInvalidLossHook", 40),
        ("Mine", 48),
        ("DistSamplerSeedHook", 50),
        ("LoggerHook", 60),
        ("ParamSchedulerHook", 70),
        ("CheckpointHook", 90),
    ]
    assert run.executor.hooks[1].checked == 6  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "train_cfg",
    [{"by_epoch": True, "max_epochs": 3}, {"by_epoch": False, "max_iters": 10, "val_interval": 5}],
)
def test_train_val_and_test(tmp_path: Path, train_cfg: dict[str, Any]) -> None:
    run = runner(
        tmp_path,
        train_cfg=train_cfg,
        param_scheduler={"type": "MultiStepLR", "milestones": [2, 3]},
        val_dataloader=loader(2),
        test_dataloader=loader(2),
    )
    run.train()

    assert run.val().keys() == run.test().keys() == {"loss", "loss_square", "loss_absolute"}


def test_objects_instead_of_config_dicts(tmp_path: Path) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = runner(tmp_path, model=model, optim_wrapper=optimizer, default_hooks={"timer": IterTimerHook()})
    before = model.linear.weight.detach().clone()
    run.train()

    assert not torch.equal(before, model.linear.weight)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(
    ("epochs", "options", "left"),
    [
        (20, {"interval": 5, "max_keep_ckpts": 2}, ["epoch_15.pth", "epoch_20.pth"]),
        (3, {"interval": 5, "save_last": True}, ["epoch_3.pth"]),
        (
            9,
            {"save_begin": 5, "interval": 2, "save_last": False},
            ["epoch_5.pth", "epoch_7.pth", "epoch_9.pth"],
        ),
        (2, {"interval": 3, "by_epoch": False}, ["iter_3.pth", "iter_6.pth", "iter_8.pth"]),
        (2, {"interval": 1, "filename_tmpl": "step_{}.pth"}, ["step_1.pth", "step_2.pth"]),
    ],
)
def test_checkpoints_are_where_the_options_say(
    tmp_path: Path, mode: str, epochs: int, options: dict[str, Any], left: list[str]
) -> None:
    train_cfg = {"by_epoch": True, "max_epochs": epochs}
    run = runner(
        tmp_path,
        mode=mode,
        train_cfg=train_cfg,
        default_hooks={"checkpoint": {"type": "CheckpointHook", **options}},
    )
    run.train()

    assert names(tmp_path) == sorted(left)


def test_the_best_of_several_metrics_is_kept_and_published(tmp_path: Path) -> None:
    values = iter([0.1, 0.9, 0.5])

    class Accuracy:
        def process(self, data_batch: object, data_samples: object) -> None:
            pass

        def evaluate(self, size: int) -> dict[str, float]:
            value = next(values)
            return {"acc": value, "mIoU": 1 - value}

    run = runner(
        tmp_path,
        val_dataloader=loader(1),
        val_evaluator=Accuracy(),
        default_hooks={
            "checkpoint": {
                "type": "CheckpointHook",
                "interval": 1,
                "save_best": ["acc", "mIoU"],
                "rule": "greater",
                "published_keys": ["meta", "state_dict"],
            }
        },
    )
    run.train()
    best = [name for name in names(tmp_path) if name.startswith("best_")]

    assert {"best_acc_epoch_2.pth", "best_mIoU_epoch_1.pth"} <= set(best)
    published = next(tmp_path / name for name in best if name.startswith("best_acc_epoch_2-"))
    assert set(restore(published)) == {"meta", "state_dict"}


def test_a_child_registry_has_a_scope_and_finds_its_parents_entries() -> None:
    child = Registry("hook", parent=HOOKS, scope="usage_child")

    @child.register_module()
    class ChildHook(Hook):
        pass

    assert type(child.build({"type": "ChildHook"})) is ChildHook
    assert type(HOOKS.build({"type": "usage_child.ChildHook"})) is ChildHook
    assert isinstance(child.build({"type": "CheckpointHook", "interval": 1}), CheckpointHook)


def test_any_loop_of_ones_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state = TrainState(model=model, optimizer=optimizer, work_dir=tmp_path / "work_dir")
    hooks = [
        LoggerHook(interval=2),
        CheckpointHook(interval=2, by_epoch=False, out_dir=str(tmp_path / "17"), max_keep_ckpts=2),
    ]
    with caplog.at_level("INFO"), HookExecutor(hooks) as executor:
        for step, batch in enumerate(loader(8)):
            executor.fire("before_train_iter", state, batch_idx=step, data_batch=batch)
            losses = model(batch)
            loss = sum(losses.values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            outputs = {"loss": loss}
            executor.fire("after_train_iter", state, batch_idx=step, data_batch=batch, outputs=outputs)

    (folder,) = {path.parent for path in (tmp_path / "17").rglob("*.pth")}
    assert [info.name for info in list_checkpoints(folder)] == ["iter_6.pth", "iter_8.pth"]
    assert sum("loss:" in message for message in caplog.messages) == 4


@pytest.mark.parametrize(
    ("options", "right_form"),
    [
        ({"default_hooks": {"checkpoint": {"type": "CheckpointHook", "internal": 5}}}, "interval"),
        (
            {"optim_wrapper": {"type": "OptimizerWrapper", "optimizer": {"type": "SGD", "lr": 1}}},
            "OptimWrapper",
        ),
        ({"custom_hooks": [{"type": "SyncBufferHook"}]}, "SyncBuffersHook"),
        ({"custom_hooks": {"type": "UsageInvalidLossHook"}}, "list"),
        ({"default_hooks": {"chekpoint": None}}, "checkpoint"),
        ({"train_cfg": {"by_epoch": True, "max_epoch": 3}}, "max_epochs"),
        ({"optim_wrapper": {"optimizer": {"type": "SDG", "lr": 1}}}, "SGD"),
    ],
)
def test_a_known_slip_names_the_right_form_at_construction(
    tmp_path: Path, options: dict[str, Any], right_form: str
) -> None:
    with pytest.raises((AsyncHooksError, TypeError), match=right_form):
        runner(tmp_path, **options)


def test_a_tuple_of_one_scheduler_is_accepted_and_run_is_explained(tmp_path: Path) -> None:
    run = runner(tmp_path, param_scheduler=({"type": "MultiStepLR", "milestones": [2]},))

    with pytest.raises((ConfigError, AttributeError), match=r"train.*val.*test"):
        run.run()
