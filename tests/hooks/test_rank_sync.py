"""What ranks agree on: statistics of normalization layers, the size of images."""

import json
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from asynchooks.hooks import SyncNormHook, SyncRandomSizeHook


def test_ranks_have_the_same_statistics_and_sizes_afterwards(tmp_path: Path) -> None:
    program = Path(__file__).with_name("ranks.py")
    files = [str(tmp_path / "store"), str(tmp_path / "answer")]
    ranks = [subprocess.Popen([sys.executable, str(program), rank, *files]) for rank in "01"]
    assert [process.wait(100) for process in ranks] == [0, 0]
    first, second = (json.loads((tmp_path / f"answer.{rank}").read_text()) for rank in (0, 1))

    assert first["mean"] == second["mean"] == [0.5, 0.5]
    assert first["batches"] == second["batches"] == 5
    assert first["linear"] != second["linear"]
    assert first["sizes"] == second["sizes"]
    random.seed(0)
    factor = random.randint(14, 26)
    assert first["sizes"] == [[32 * factor, 32 * (factor // 2)]]


def test_without_other_ranks_nothing_is_averaged() -> None:
    model = nn.BatchNorm1d(2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    SyncNormHook().before_val_epoch(SimpleNamespace(model=model))

    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


def test_arguments_choose_the_older_form(monkeypatch: pytest.MonkeyPatch) -> None:
    averaged: list[int] = []
    run: Any = SimpleNamespace(model=None, max_epochs=10, epoch=0)
    module = sys.modules[SyncNormHook.__module__]
    monkeypatch.setattr(
        module, "_average", lambda _: averaged.append(run.epoch)
    )  # instead of ten collectives
    hook = SyncNormHook(num_last_epochs=2, interval=3)
    for run.epoch in range(10):
        hook.after_train_epoch(run)
        hook.before_val_epoch(run)

    assert averaged == [2, 5, 7, 8, 9]


@pytest.mark.filterwarnings("ignore:SyncRandomSizeHook:DeprecationWarning")
def test_a_size_is_drawn_every_so_many_epochs() -> None:
    sizes: list[tuple[int, int]] = []
    dataset = SimpleNamespace(update_dynamic_scale=sizes.append)
    run: Any = SimpleNamespace(epoch=0, train_dataloader=SimpleNamespace(dataset=dataset))
    hook = SyncRandomSizeHook(ratio_range=(3, 3), interval=2)
    hook.before_train(run)
    for run.epoch in range(5):
        hook.after_train_epoch(run)
    SyncRandomSizeHook(ratio_range=None).after_train_epoch(run)

    assert sizes == [(96, 96)] * 2


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"ratio_range": (26, 14)}, "smallest factor first"),
        ({"img_scale": 640}, "two ints"),
        ({"interval": 0}, "int >= 1"),
    ],
)
def test_a_wrong_size_is_said_at_construction(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        SyncRandomSizeHook(**options)


def test_the_hook_says_that_it_is_deprecated() -> None:
    with pytest.warns(DeprecationWarning, match="transform that resizes"):
        SyncRandomSizeHook()


@pytest.mark.filterwarnings("ignore:SyncRandomSizeHook:DeprecationWarning")
def test_data_without_sizes_are_said_before_the_training() -> None:
    run = SimpleNamespace(train_dataloader=[1])
    with pytest.raises(ValueError, match="no update_dynamic_scale"):
        SyncRandomSizeHook().before_train(run)


def test_wrong_epochs_are_said_at_construction() -> None:
    with pytest.raises(ValueError, match="interval=0"):
        SyncNormHook(interval=0)
