"""MMCV's loggers for services that are not installed here: the calls that they make of the clients."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch

from asynchooks.errors import BackgroundHookError, ConfigError, UnknownOptionError
from asynchooks.execution import Effects, RunnerHook, background
from asynchooks.registry import MMCV_HOOKS

Run = Callable[..., Any]
Calls = list[tuple[str, dict[str, Any]]]

RATES = {"learning_rate": 0.5, "momentum": 0.9}


class Results(RunnerHook):
    priority = "LOW"
    effects = Effects()

    def after_train_epoch(self, runner: Any) -> None:
        runner.log_buffer.output["mAP"] = 0.5
        runner.log_buffer.ready = True


def named(calls: Calls, name: str) -> list[dict[str, Any]]:
    return [arguments for call, arguments in calls if call == name]


@pytest.mark.parametrize(
    ("hook", "package"),
    [
        ("PaviLoggerHook", "pavi"),
        ("NeptuneLoggerHook", "neptune"),
        ("DvcliveLoggerHook", "dvclive"),
        ("SegmindLoggerHook", "segmind"),
        ("ClearMLLoggerHook", "clearml"),
    ],
)
def test_a_package_that_is_not_there_is_named_at_construction(hook: str, package: str) -> None:
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")

    with pytest.raises(ConfigError, match=f"needs the package {package}: pip install .*{package}"):
        MMCV_HOOKS.build({"type": hook})


def test_clearml(run: Run, stand_ins: Calls) -> None:
    run({"type": "ClearMLLoggerHook", "init_kwargs": {"project_name": "p"}, "interval": 4})

    assert stand_ins[0] == ("init", {"project_name": "p"})
    assert {call["title"]: call["value"] for call in named(stand_ins, "report_scalar")} == {
        "train/loss": 2.5,
        **RATES,
    }
    assert stand_ins[-1] == ("close", {})


@pytest.mark.parametrize("with_step", [True, False])
def test_neptune(run: Run, stand_ins: Calls, with_step: bool) -> None:
    run({"type": "NeptuneLoggerHook", "interval": 4, "with_step": with_step})
    calls = named(stand_ins, "append")

    assert {call["path"]: call["value"] for call in calls} == {
        "train/loss": 2.5,
        **RATES,
        **({} if with_step else {"global_step": 4}),
    }
    assert {call.get("step") for call in calls} == {4 if with_step else None}
    assert [stand_ins[0], stand_ins[-1]] == [("init_run", {}), ("stop", {})]


def test_segmind(run: Run, stand_ins: Calls) -> None:
    run({"type": "SegmindLoggerHook", "interval": 4})

    assert stand_ins == [("log_metrics", {"metrics": {"train/loss": 2.5, **RATES}, "step": 0, "epoch": 0})]


def test_dvclive_has_one_line_per_epoch(run: Run, stand_ins: Calls) -> None:
    run(Results(), {"type": "DvcliveLoggerHook", "dir": "d", "save_dvc_exp": False}, max_epochs=2)

    assert stand_ins[0] == ("Live", {"dir": "d", "save_dvc_exp": False})
    assert [(c["name"], c["val"], c["step"]) for c in named(stand_ins, "log_metric")][:4] == [
        ("train/loss", 2.5, 1),
        ("val/mAP", 0.5, 1),
        ("learning_rate", 0.5, 1),
        ("momentum", 0.9, 1),
    ]
    assert stand_ins[-1] == ("end", {})


def test_dvclive_counts_iterations_where_epochs_are_not(run: Run, stand_ins: Calls) -> None:
    run({"type": "DvcliveLoggerHook", "by_epoch": False, "interval": 3}, max_iters=7)

    assert [c["step"] for c in named(stand_ins, "log_metric") if c["name"] == "train/loss"] == [3, 6]


def test_dvclive_saves_the_newest_model_under_one_name(run: Run, stand_ins: Calls, tmp_path: Path) -> None:
    path = tmp_path / "models" / "model.pth"
    run({"type": "DvcliveLoggerHook", "model_file": path}, max_epochs=2)

    assert torch.load(path, weights_only=True)["meta"]["epoch"] == 2


def test_a_live_of_the_callers_is_not_ended(run: Run, stand_ins: Calls) -> None:
    live = importlib.import_module("dvclive").Live()
    run({"type": "DvcliveLoggerHook", "dvclive": live})

    assert len(named(stand_ins, "Live")) == 1
    assert not named(stand_ins, "end")


def test_pavi_has_numbers_and_the_configuration(run: Run, stand_ins: Calls) -> None:
    run(
        Results(),
        {"type": "PaviLoggerHook", "init_kwargs": {"project": "p"}, "interval": 4},
        meta={"config_dict": {"lr": 0.5, "hook": Results}},
    )
    text = f"hook: {Results}\nlr: 0.5\nmax_iter: 4\n"

    assert stand_ins == [
        ("SummaryWriter", {"name": "run", "model": "Net", "project": "p", "session_text": text}),
        ("add_scalars", {"phase": "train", "dictionary": {"loss": 2.5, **RATES}, "iteration": 4}),
        ("add_scalars", {"phase": "val", "dictionary": {"mAP": 0.5, **RATES}, "iteration": 1}),
        ("close", {}),
    ]


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_pavi_gets_checkpoints_that_are_durable(
    run: Run, stand_ins: Calls, tmp_path: Path, mode: str
) -> None:
    pavi = {"type": "PaviLoggerHook", "add_ckpt_kwargs": {"active": True, "start": 2}, "add_last_ckpt": True}
    run({"type": "CheckpointHook", "interval": 1}, (pavi, "VERY_LOW"), max_epochs=3, mode=mode)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "run").glob("epoch_*.pth")}

    assert [(c["name"], c["iteration"], c["size"]) for c in named(stand_ins, "add_snapshot_file")] == [
        ("epoch_2.pth", 2, sizes["epoch_2.pth"]),
        ("epoch_3.pth", 3, sizes["epoch_3.pth"]),
        ("epoch_3.pth", 3, sizes["epoch_3.pth"]),
    ]


class SavesHalf(RunnerHook):
    """Leaves half a checkpoint behind and fails."""

    effects = Effects(writes={"checkpoints"})
    changes_state = False

    @background
    def after_train_epoch(self, runner: Any) -> Any:
        async def save() -> None:
            await anyio.Path(runner.work_dir, "epoch_1.pth").write_bytes(b"half")
            raise OSError("the disk is full")

        return save


def test_pavi_gets_nothing_of_a_save_that_failed(run: Run, stand_ins: Calls, tmp_path: Path) -> None:
    pavi = {"type": "PaviLoggerHook", "add_ckpt_kwargs": {"active": True}}
    with pytest.raises(BackgroundHookError, match="the disk is full"):
        run(SavesHalf(), (pavi, "VERY_LOW"))

    assert (tmp_path / "run" / "epoch_1.pth").exists()
    assert not named(stand_ins, "add_snapshot_file")


def test_pavi_traces_a_copy_of_the_model_when_it_is_due(run: Run, stand_ins: Calls) -> None:
    graph = {"active": True, "start": 2, "interval": 2, "opset_version": 13}
    run({"type": "PaviLoggerHook", "add_graph_kwargs": graph}, max_epochs=4)

    assert named(stand_ins, "add_graph") == [
        {"model": "Net", "tag": "run_2", "opset_version": 13},
        {"model": "Net", "tag": "run_4", "opset_version": 13},
    ]


def test_a_key_that_pavi_does_not_have_is_refused(stand_ins: Calls) -> None:
    with pytest.raises(UnknownOptionError, match="'intervall'. Did you mean 'interval'"):
        MMCV_HOOKS.build({"type": "PaviLoggerHook", "add_ckpt_kwargs": {"intervall": 2}})
