"""CheckpointHook and EarlyStoppingHook beside MMEngine's: the same files, the same bests, the same memory of them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmengine.hooks
import pytest

import asynchooks.hooks

pytestmark = pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")

RISING = [{"acc": value} for value in (0.1, 0.4, 0.3, 0.4, 0.6, 0.6)]
FALLING = [{"val/loss": value, "acc": 1 - value} for value in (0.9, 0.4, 0.5, 0.3, 0.2, 0.8)]
MIXED = [
    {"acc": a, "loss": b} for a, b in ((0.1, 1.0), (0.3, 2.0), (0.2, 0.5), (0.3, 0.5), (0.0, 0.1), (0.9, 9))
]
EVERY = {"interval": 1}


def left(run: Any) -> dict[str, Any]:
    """Return what a run leaves: files, what is in them, the hub's memory, the pointer; without its folder."""
    folder = str(run.runner.work_dir)
    infos = run.runner.message_hub.runtime_info
    hub = {key: value for key, value in infos.items() if re.match(r"last_ckpt|keep_ckpt_ids|best_", key)}
    pointer = Path(folder, "last_checkpoint")
    return {
        "files": sorted(re.sub(r"-[0-9a-f]{8}(?=\.)", "-sha", name) for name in run.files),
        "positions": {
            name: (content["meta"]["epoch"], content["meta"]["iter"])
            for name, content in run.files.items()
            if "meta" in content and "-" not in name
        },
        "parts": {
            name: sorted({"state_dict", "optimizer", "param_schedulers"} & content.keys())
            for name, content in run.files.items()
            if "-" not in name
        },
        "hub": {
            key: value.replace(folder, "") if isinstance(value, str) else value for key, value in hub.items()
        },
        "pointer": pointer.read_text().replace(folder, "") if pointer.exists() else None,
    }


CHOICES = [
    ({"interval": 2, "save_begin": 3}, None),
    ({"interval": 2, "save_begin": 3, "save_last": False}, None),
    ({"interval": -1, "save_last": False}, None),
    ({"interval": 1, "max_keep_ckpts": 2}, None),
    ({"interval": 1, "filename_tmpl": "step_{:03d}.pth"}, None),
    ({"interval": 4, "save_optimizer": False, "save_param_scheduler": False}, None),
    ({**EVERY, "save_best": "acc", "max_keep_ckpts": 2}, RISING),
    ({"interval": 2, "save_best": "acc", "save_last": False}, RISING),
    ({"interval": 4, "save_best": "acc", "max_keep_ckpts": 2}, RISING),
    ({"interval": -1, "save_best": "acc", "save_last": False}, RISING),
    ({**EVERY, "save_best": "val/loss"}, FALLING),
    ({**EVERY, "save_best": "auto"}, FALLING),
    ({**EVERY, "save_best": ["auto"]}, RISING),
    ({**EVERY, "save_best": "acc", "rule": "less"}, RISING),
    ({**EVERY, "save_best": ["acc", "loss"]}, MIXED),
    ({**EVERY, "save_best": ["acc", "loss"], "rule": "less"}, MIXED),
    ({**EVERY, "save_best": ["acc", "loss"], "rule": ["less", "greater"]}, MIXED),
    ({"interval": 3, "save_best": ["acc", "loss"], "filename_tmpl": "e{}.pth"}, MIXED),
    ({**EVERY, "save_best": "acc", "greater_keys": ["loss"], "less_keys": "acc"}, MIXED),
    ({**EVERY, "save_best": ["loss"], "greater_keys": "los", "less_keys": ["acc"]}, MIXED),
    ({**EVERY, "save_best": "acc", "published_keys": ["meta", "state_dict"]}, RISING),
    ({"interval": 2, "published_keys": "state_dict", "save_last": False}, None),
    ({**EVERY, "save_best": ["acc", "loss"], "published_keys": ["state_dict"]}, MIXED),
]


@pytest.fixture(autouse=True)
def _published_files_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """MMEngine cannot read its own checkpoints, with torch as it is; to publish them it must."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory, where there is such a folder: hundreds of checkpoints are written, each with its fsync."""
    shared_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else tmp_path) as name:
        yield Path(name)


@pytest.mark.parametrize(("options", "metrics"), CHOICES)
@pytest.mark.parametrize("by_epoch", [True, False], ids=["epochs", "iterations"])
def test_the_same_checkpoints_are_left(
    side_by_side: Any, scripted: Any, options: dict[str, Any], metrics: Any, by_epoch: bool
) -> None:
    by_epochs = {"train_cfg": {"by_epoch": True, "max_epochs": 6}, "samples": 4}
    by_iterations = {"train_cfg": {"by_epoch": False, "max_iters": 6, "val_interval": 1}, "samples": 24}
    theirs, ours = side_by_side(
        param_scheduler={"type": "ExponentialLR", "gamma": 0.9, "by_epoch": by_epoch},
        default_hooks={"checkpoint": {"type": "CheckpointHook", "by_epoch": by_epoch, **options}},
        **(by_epochs if by_epoch else by_iterations),
        **({} if metrics is None else {"metric": scripted(metrics)}),
    )

    assert left(ours) == left(theirs)


def test_a_folder_elsewhere_holds_the_same_and_the_runs_own_names_it(
    side_by_side: Any, scripted: Any, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    hook = {"type": "CheckpointHook", "interval": 2, "save_best": "acc", "out_dir": str(elsewhere)}
    runs = side_by_side(
        train_cfg={"by_epoch": True, "max_epochs": 6},
        samples=4,
        default_hooks={"checkpoint": hook},
        metric=scripted(RISING),
    )
    names = [Path(run.runner.work_dir).name for run in runs]
    folders = [elsewhere / name for name in names]

    theirs, ours = ([path.name for path in sorted(folder.glob("*.pth"))] for folder in folders)
    assert ours == theirs != []
    for run, folder in zip(runs, folders, strict=True):
        assert Path(run.runner.work_dir, "last_checkpoint").read_text() == str(folder / "epoch_6.pth")


@pytest.mark.parametrize(
    "options",
    [
        {"save_begin": -1},
        {"save_best": "mood"},
        {"save_best": "acc", "rule": "more"},
        {"save_best": ["acc", "loss"], "rule": ["less", "less", "less"]},
        {"save_best": ["acc", "acc"]},
        {"save_best": ["auto", "acc"]},
        {"save_best": {"acc": 1}},
        {"published_keys": ["meta", "meta"]},
        {"published_keys": {"meta": 1}},
        {"backend_args": {}, "file_client_args": {"backend": "local"}},
    ],
)
def test_what_mmengine_refuses_is_refused(options: dict[str, Any]) -> None:
    refusals = (ValueError, TypeError, KeyError, AssertionError)
    for hooks in (mmengine.hooks, asynchooks.hooks):
        with pytest.raises(refusals):
            hooks.CheckpointHook(interval=1, **options)


@pytest.mark.parametrize(
    ("options", "scores"),
    [
        ({}, (0.5, 0.55, 0.61, 0.7, 0.71)),
        ({"patience": 2}, (0.5, 0.6, 0.6, 0.65, 0.69, 0.9)),
        ({"patience": 2, "min_delta": 0.0}, (0.5, 0.5, 0.5, 0.4, 0.3)),
        ({"patience": 0}, (0.5, 0.5, 0.5)),
        ({"patience": 1, "rule": "less", "min_delta": 0.05}, (0.5, 0.45, 0.44, 0.2)),
        ({"stopping_threshold": 0.6}, (0.5, 0.6, 0.61, 0.7)),
        ({"check_finite": True}, (0.5, float("inf"), 0.6)),
        ({"check_finite": False}, (0.5, float("inf"), 0.6)),
        ({"patience": 3}, (-0.2, 0.1, 0.2, 0.30000000000000004, 0.3, 0.2)),
    ],
)
def test_a_training_stops_after_the_same_validation(
    side_by_side: Any, scripted: Any, options: dict[str, Any], scores: tuple[float, ...]
) -> None:
    theirs, ours = side_by_side(
        train_cfg={"by_epoch": True, "max_epochs": len(scores)},
        samples=4,
        custom_hooks=[{"type": "EarlyStoppingHook", "monitor": "acc", **options}],
        metric=scripted([{"acc": score} for score in scores]),
    )
    hooks = [
        next(hook for hook in run.runner.hooks if type(hook).__name__ == "EarlyStoppingHook")
        for run in (theirs, ours)
    ]

    assert len(ours.metrics) == len(theirs.metrics)
    assert (hooks[1].wait_count, hooks[1].best_score) == (hooks[0].wait_count, hooks[0].best_score)
