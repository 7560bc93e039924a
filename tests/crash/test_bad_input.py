"""Mistakes of the user in a whole run: an error at the call that made it, and what was saved before is there."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from asynchooks.checkpoint import Checkpointer, Snapshot, capture, list_checkpoints, restore
from asynchooks.errors import (
    AsyncHooksError,
    CheckpointNotFoundError,
    CorruptCheckpointError,
    ForeignCheckpointError,
    HookDefinitionError,
    UnknownNameError,
    UnknownPointError,
)
from asynchooks.execution import Effects, Hook
from asynchooks.runner import Runner

from .trainer import make_runner

SIZE = 20


def make(tmp_path: Path, *hooks: Hook, iters: int = 6, **changes: Any) -> Runner:
    changes.setdefault("val_dataloader", None)
    checkpoint = {"save_best": None, "max_keep_ckpts": -1}
    return make_runner(
        str(tmp_path / "run"),
        str(tmp_path / "saved"),
        {},
        iters,
        *hooks,
        size=SIZE,
        checkpoint=checkpoint,
        **changes,
    )


def saved_steps(tmp_path: Path) -> list[int]:
    infos = list_checkpoints(tmp_path / "saved" / "run")
    return [int(restore(info.url)["meta"]["iter"]) for info in infos]


@pytest.fixture(autouse=True)
def _no_thread_is_left_behind() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "asynchooks-portal"]


# ---- hooks ----


class Misspelt(Hook):
    def after_trian_iter(self, runner: Any) -> None:
        """Never runs, if nobody tells."""


class TooFewArguments(Hook):
    def after_train_iter(self, runner: Any) -> None:  # type: ignore[override] # on purpose
        """Cannot be called as the point is."""


class Generating(Hook):
    def after_train_epoch(self, runner: Any) -> Any:
        yield "never runs"


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        (Misspelt(), r"Misspelt.*after_trian_iter.*after_train_iter"),
        (TooFewArguments(), r"TooFewArguments\.after_train_iter"),
        (Generating(), r"Generating\.after_train_epoch.*generator"),
        (Hook, r"class"),
    ],
)
def test_a_hook_of_the_wrong_shape_is_refused_by_the_constructor(
    tmp_path: Path, hook: Any, words: str
) -> None:
    with pytest.raises(HookDefinitionError, match=words):
        make(tmp_path, hook)


class Forgetful(Hook):
    effects = Effects()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> Any:
        async def never_awaited() -> None:
            """Would not run."""

        return never_awaited if runner.iter == 3 else None


def test_a_hook_that_forgot_background_stops_the_run_at_that_call_and_saves_are_finished(
    tmp_path: Path,
) -> None:
    runner = make(tmp_path, Forgetful())

    with pytest.raises(HookDefinitionError, match=r"Forgetful\.after_train_iter.*@background"):
        runner.train()

    assert runner.iter == 3
    assert saved_steps(tmp_path) == [2]


class Firing(Hook):
    """Fires a point that does not exist."""

    effects = Effects()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if runner.iter == 4:
            runner.call_hook("after_trian")


def test_an_unknown_point_is_an_error_where_it_is_fired_and_saves_are_finished(tmp_path: Path) -> None:
    with pytest.raises(UnknownPointError, match=r"after_trian.*after_train"):
        make(tmp_path, Firing()).train()

    assert saved_steps(tmp_path) == [2, 4]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (({"type": "EmptyCasheHook"},), "EmptyCasheHook"),
        (({"type": "IterTimerHook"}, "URGENT"), "URGENT"),
        (({"type": "IterTimerHook", "priority": "NORMALL"},), "NORMAL"),
    ],
)
def test_an_unknown_name_is_an_error_of_register_hook(
    tmp_path: Path, arguments: tuple[Any, ...], words: str
) -> None:
    runner = make(tmp_path)
    before = runner.hooks

    with pytest.raises(UnknownNameError, match=words):
        runner.register_hook(*arguments)

    assert runner.hooks == before


def test_a_metric_that_no_validation_has_is_an_error_of_the_first_one_and_saves_are_finished(
    tmp_path: Path,
) -> None:
    runner = make_runner(
        str(tmp_path / "run"),
        str(tmp_path / "saved"),
        {},
        12,
        size=SIZE,
        checkpoint={"save_best": "accuracy", "rule": "greater"},
    )

    with pytest.raises(UnknownNameError, match=r"accuracy.*It has loss"):
        runner.train()

    assert runner.iter == 5
    assert saved_steps(tmp_path) == [2, 4]


# ---- checkpoints ----

RAN = "this code ran"


class Hostile:
    """Runs code in whoever unpickles it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.write_text, (self.marker, RAN)


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """The file that hostile code writes; it must not be there at the end."""
    yield tmp_path / "marker"
    assert not (tmp_path / "marker").exists()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The folder of a run that has saved at 2, 4 and 6."""
    make(tmp_path).train()
    return tmp_path / "saved" / "run"


def write_truncated(path: Path, marker: Path) -> None:
    whole = path.with_name("whole.pth")
    torch.save({"state_dict": {}, "meta": {}, "filler": torch.zeros(1000)}, whole)
    path.write_bytes(whole.read_bytes()[:-500])


def write_text(path: Path, marker: Path) -> None:
    path.write_text("this is no checkpoint")


def write_foreign(path: Path, marker: Path) -> None:
    torch.save({"model": torch.zeros(3)}, path)


def write_other_model(path: Path, marker: Path) -> None:
    torch.save({"state_dict": {"layer.weight": torch.zeros(3, 3)}, "meta": {}}, path)


def write_hostile_pickle(path: Path, marker: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": Hostile(marker)}))


def write_hostile_archive(path: Path, marker: Path) -> None:
    torch.save({"state_dict": {}, "meta": Hostile(marker)}, path)


BAD_FILES = [
    (write_truncated, CorruptCheckpointError, "truncated or damaged"),
    (write_text, ForeignCheckpointError, "is no checkpoint"),
    (write_foreign, ForeignCheckpointError, "no checkpoint of a training run.*'model'"),
    (write_other_model, ForeignCheckpointError, "does not fit Net"),
    (write_hostile_pickle, ForeignCheckpointError, "is no checkpoint"),
    (write_hostile_archive, ForeignCheckpointError, "loading it would run code"),
]


@pytest.mark.parametrize("argument", ["resume", "load_from"])
@pytest.mark.parametrize(("write", "error", "words"), BAD_FILES)
def test_a_named_checkpoint_that_is_bad_is_an_error_before_training(
    tmp_path: Path, marker: Path, argument: str, write: Any, error: type[AsyncHooksError], words: str
) -> None:
    path = tmp_path / "bad.pth"
    write(path, marker)
    options: dict[str, Any] = {"resume": False, argument: str(path)}
    runner = make(tmp_path, **options)

    with pytest.raises(error, match=rf"bad\.pth.*{words}"):
        runner.train()

    assert runner.iter == 0
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("argument", ["resume", "load_from"])
def test_a_named_checkpoint_that_is_missing_is_an_error_before_training(
    tmp_path: Path, argument: str
) -> None:
    options: dict[str, Any] = {"resume": False, argument: str(tmp_path / "nothing.pth")}
    runner = make(tmp_path, **options)

    with pytest.raises(CheckpointNotFoundError, match=r"nothing\.pth"):
        runner.train()


@pytest.mark.parametrize("write", [write for write, _, _ in BAD_FILES])
def test_a_newest_checkpoint_that_was_overwritten_is_passed_over_aloud(
    tmp_path: Path, saved: Path, marker: Path, write: Any, caplog: pytest.LogCaptureFixture
) -> None:
    write(saved / "iter_6.pth", marker)
    runner = make(tmp_path, iters=8)

    runner.train()

    assert "iter_6.pth is not a committed checkpoint" in caplog.text
    assert "resumed from" in caplog.text
    assert "iter_4.pth" in caplog.text
    assert runner.iter == 8


def test_bad_files_without_a_manifest_are_nobodys_checkpoint(
    tmp_path: Path, saved: Path, marker: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = [saved / f"iter_{100 + number}.pth" for number in range(len(BAD_FILES))]
    for path, (write, _, _) in zip(bad, BAD_FILES, strict=True):
        write(path, marker)
    before = [path.read_bytes() for path in bad]
    runner = make(tmp_path, iters=8)

    runner.train()

    assert "iteration 6" in caplog.text
    assert runner.iter == 8
    assert [path.read_bytes() for path in bad] == before


def test_a_hostile_checkpoint_with_a_manifest_is_an_error_and_runs_no_code(
    tmp_path: Path, saved: Path, marker: Path
) -> None:
    state = {"state_dict": {}, "meta": Hostile(marker)}  # capturing would copy it
    hostile = Snapshot(state, 0, (), capture({}).image)
    Checkpointer(saved).save_sync(hostile, name="iter_9.pth", step=9)

    with pytest.raises(ForeignCheckpointError, match=r"iter_9\.pth.*loading it would run code"):
        make(tmp_path).train()

    assert [info.step for info in list_checkpoints(saved)] == [2, 4, 6, 9]
