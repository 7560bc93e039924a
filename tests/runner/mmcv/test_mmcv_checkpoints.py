"""Checkpoints of runs in MMCV's manner: which there are, and what stands in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from asynchooks.checkpoint import list_checkpoints, restore
from asynchooks.errors import UnknownOptionError
from asynchooks.execution import Effects, RunnerHook
from asynchooks.hooks.mmcv import CheckpointHook, EvalHook

from .conftest import MakeRun, Net, Numbers, loader, names, weights


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"interval": 1}, [1, 2, 3, 4]),
        ({"interval": 2}, [2, 4]),
        ({"interval": 3}, [3, 4]),
        ({"interval": 3, "save_last": False}, [3]),
        ({"interval": 1, "max_keep_ckpts": 2}, [3, 4]),
        ({}, [4]),
    ],
)
@pytest.mark.parametrize("by_epoch", [True, False])
def test_which_checkpoints_are_left(
    make_run: MakeRun, tmp_path: Path, options: Any, expected: list[int], by_epoch: bool
) -> None:
    runner = make_run(**({"max_epochs": 4} if by_epoch else {"max_iters": 4}))
    runner.register_checkpoint_hook({"by_epoch": by_epoch, **options})
    runner.run([loader(4)])

    kind = "epoch" if by_epoch else "iter"
    assert names(tmp_path / "run") == [f"{kind}_{number}.pth" for number in expected]
    assert (tmp_path / "run" / "latest.pth").resolve().name == f"{kind}_{expected[-1]}.pth"


@pytest.mark.parametrize(("limit", "by_epoch"), [({"max_epochs": 2}, True), ({"max_iters": 2}, False)])
def test_a_checkpoint_stores_what_its_name_says(
    make_run: MakeRun, tmp_path: Path, limit: Any, by_epoch: bool
) -> None:
    runner = make_run(CheckpointHook(interval=1, by_epoch=by_epoch), meta={"CLASSES": ("a", "b")}, **limit)
    runner.run([loader()])

    path = str(tmp_path / "run" / ("epoch_2.pth" if by_epoch else "iter_2.pth"))
    content = restore(path)
    assert (content["meta"]["epoch"], content["meta"]["iter"]) == ((2, 4) if by_epoch else (0, 2))
    assert content["meta"]["CLASSES"] == ("a", "b")
    assert content["meta"]["hook_msgs"] == {"last_ckpt": path}
    assert content["optimizer"]["param_groups"][0]["momentum"] == 0.9
    assert runner.meta is not None
    assert runner.meta["hook_msgs"]["last_ckpt"] == path


def test_what_hooks_note_in_meta_stands_in_checkpoints(make_run: MakeRun, tmp_path: Path) -> None:
    class Noting(RunnerHook):
        effects = Effects()

        def before_run(self, runner: Any) -> None:
            runner.meta.setdefault("hook_msgs", {})["mine"] = 5

    make_run(Noting(), CheckpointHook(), meta={}, max_epochs=1).run([loader()])

    assert restore(str(tmp_path / "run" / "epoch_1.pth"))["meta"]["hook_msgs"]["mine"] == 5


@pytest.mark.parametrize("by_epoch", [True, False])
def test_sync_and_async_runs_leave_the_same_files(make_run: MakeRun, tmp_path: Path, by_epoch: bool) -> None:
    found = {}
    for mode in ("sync", "async"):
        folder = tmp_path / mode / "run"
        data = Numbers(4, tuple({"acc": score} for score in (0.1, 0.3, 0.2, 0.4)))
        evaluation = EvalHook(DataLoader(data, batch_size=4), save_best="acc", by_epoch=by_epoch)
        limit = {"max_epochs": 4} if by_epoch else {"max_iters": 4}
        saving = CheckpointHook(interval=1, max_keep_ckpts=2, by_epoch=by_epoch)
        runner = make_run(saving, evaluation, work_dir=folder, mode=mode, **limit)
        runner.run([loader(shuffle=True), loader()], [("train", 1), ("val", 1)])
        found[mode] = {info.name: restore(info.url) for info in list_checkpoints(str(folder))}
        assert runner.meta is not None
        found[mode]["hook_msgs"] = {k: Path(str(v)).name for k, v in runner.meta["hook_msgs"].items()}

    kind = "epoch" if by_epoch else "iter"
    saved = [f"best_acc_{kind}_4.pth", f"{kind}_3.pth", f"{kind}_4.pth"]
    assert sorted(found["sync"]) == sorted(found["async"]) == sorted([*saved, "hook_msgs"])
    assert found["sync"]["hook_msgs"] == found["async"]["hook_msgs"]
    for name in saved:
        states = [found[mode][name]["state_dict"] for mode in found]
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_a_checkpoint_goes_below_the_folder_of_the_runs_name(make_run: MakeRun, tmp_path: Path) -> None:
    hook = CheckpointHook(interval=1, out_dir=str(tmp_path / "out"), filename_tmpl="step_{}.pth")
    runner = make_run(hook, max_epochs=1)
    runner.run([loader()])
    runner.run([loader()], max_epochs=2)

    assert names(tmp_path / "out" / "run") == ["step_1.pth", "step_2.pth"]
    assert hook.checkpoint_folder(runner) == str(tmp_path / "out" / "run")


def test_no_link_is_made_where_none_is_wanted(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(CheckpointHook(create_symlink=False), max_epochs=1).run([loader()])

    assert not (tmp_path / "run" / "latest.pth").exists()


def test_an_unknown_argument_is_refused_at_construction() -> None:
    with pytest.raises(UnknownOptionError, match=r"Did you mean 'filename_tmpl'"):
        CheckpointHook(filename_tpl="a_{}.pth")


@pytest.mark.parametrize(("limit", "name"), [({}, "epoch_1.pth"), ({"max_iters": 1}, "iter_1.pth")])
def test_a_runner_saves_when_it_is_asked_to(make_run: MakeRun, tmp_path: Path, limit: Any, name: str) -> None:
    runner = make_run(**limit)
    runner.save_checkpoint(str(tmp_path / "own"), meta={"note": 1}, save_optimizer=False)

    content = restore(str(tmp_path / "own" / name))
    assert content["meta"]["note"] == 1
    assert "optimizer" not in content
    assert (tmp_path / "own" / "latest.pth").resolve().name == name
    with pytest.raises(TypeError, match="meta is a dict"):
        runner.save_checkpoint(str(tmp_path / "own"), meta=[1])  # type: ignore[arg-type]


def test_a_hook_may_save_during_the_run(make_run: MakeRun, tmp_path: Path) -> None:
    class Saving(RunnerHook):
        effects = Effects(writes={"checkpoints"})

        def after_train_epoch(self, runner: Any) -> None:
            runner.save_checkpoint(runner.work_dir, "own_{}.pth", create_symlink=False)

    make_run(Saving(), CheckpointHook(interval=1)).run([loader()])

    assert names(tmp_path / "run") == ["epoch_1.pth", "epoch_2.pth", "own_1.pth", "own_2.pth"]
    assert restore(str(tmp_path / "run" / "own_2.pth"))["meta"]["epoch"] == 2


def test_names_of_weights_are_revised(make_run: MakeRun, tmp_path: Path) -> None:
    path, source = tmp_path / "foreign.pth", Net()
    torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, path)
    runner = make_run()
    runner.load_checkpoint(path)

    assert torch.equal(weights(runner), torch.nn.utils.parameters_to_vector(source.parameters()))
    torch.save({"state_dict": {f"net.{k}": v for k, v in Net().state_dict().items()}}, path)
    content = runner.load_checkpoint(path, strict=True, revise_keys=[(r"^net\.", "")])
    assert sorted(content["state_dict"]) == sorted(source.state_dict())


def test_several_optimizers_are_saved_by_name(make_run: MakeRun, tmp_path: Path) -> None:
    class Both(RunnerHook):
        priority = "ABOVE_NORMAL"
        effects = Effects()

        def after_train_iter(self, runner: Any) -> None:  # type: ignore[override]
            runner.outputs["loss"].backward()
            for optimizer in runner.optimizer.values():
                optimizer.step()
                optimizer.zero_grad()

    def make() -> Any:
        net = Net()
        first = torch.optim.SGD(net.layers[0].parameters(), lr=0.1, momentum=0.9)
        second = torch.optim.Adam(net.layers[2].parameters())
        optimizers = {"first": first, "second": second}
        return make_run(
            Both(), CheckpointHook(interval=1), trains=False, model=net, optimizer=optimizers, max_epochs=2
        )

    make().run([loader()])
    resumed = make()
    resumed.resume(tmp_path / "run" / "epoch_1.pth")
    resumed.run([loader()])

    content = restore(str(tmp_path / "run" / "epoch_2.pth"))
    assert sorted(content["optimizer"]) == ["first", "second"]
    assert content["optimizer"]["second"]["state"][0]["step"] == 4
