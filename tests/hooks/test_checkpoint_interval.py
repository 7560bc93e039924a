"""When the checkpoint hook saves, where to, and what stays."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import fsspec
import pytest
import torch

from asynchooks.checkpoint import find_latest, list_checkpoints, read_pointer, restore, verify
from asynchooks.checkpoint._owner import OWNER_FILE
from asynchooks.errors import StorageError
from asynchooks.execution import Effects, Hook, HookExecutor
from asynchooks.hooks import CheckpointHook, ParamSchedulerHook
from asynchooks.runner import TrainState
from asynchooks.testing import S3Server

Names = Callable[[Path], list[str]]
MODES = ("sync", "async")


@pytest.mark.parametrize("mode", MODES)
def test_of_20_epochs_every_fifth_is_saved_and_the_last_two_are_kept(
    train: Any, names: Names, tmp_path: Path, mode: str
) -> None:
    train(CheckpointHook(interval=5, max_keep_ckpts=2), epochs=20, mode=mode, work_dir=tmp_path)

    assert names(tmp_path) == ["epoch_15.pth", "epoch_20.pth"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        OWNER_FILE,
        "epoch_15.pth",
        "epoch_15.pth.manifest.json",
        "epoch_20.pth",
        "epoch_20.pth.manifest.json",
        "last_checkpoint",
    ]
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "epoch_20.pth")


@pytest.mark.s3
def test_a_bucket_keeps_the_same_checkpoints_as_a_folder(train: Any, s3_server: S3Server) -> None:
    bucket = s3_server.make_bucket("interval")
    options = dict(s3_server.storage_options)
    hook = CheckpointHook(interval=5, max_keep_ckpts=2, out_dir=bucket, backend_args=options)
    train(hook, epochs=20)

    infos = list_checkpoints(f"{bucket}/run", storage_options=options)
    assert [info.name for info in infos] == ["epoch_15.pth", "epoch_20.pth"]
    verify(infos[-1].url, storage_options=options)
    assert read_pointer(f"{bucket}/run", storage_options=options) == f"{bucket}/run/epoch_20.pth"


def test_a_memory_store_takes_checkpoints(train: Any) -> None:
    train(CheckpointHook(interval=1, out_dir="memory://takes", max_keep_ckpts=1), epochs=3)

    infos = list_checkpoints("memory://takes/run")
    assert [(info.name, info.step, info.epoch) for info in infos] == [("epoch_3.pth", 6, 3)]


def test_sync_and_async_leave_the_same_files_with_bit_identical_tensors(train: Any, tmp_path: Path) -> None:
    for mode in MODES:
        hook = CheckpointHook(interval=2, max_keep_ckpts=2, save_best="acc")
        scores = [{"acc": value} for value in (0.1, 0.5, 0.2, 0.7, 0.3, 0.6)]
        train(ParamSchedulerHook(), hook, epochs=7, metrics=scores, mode=mode, work_dir=tmp_path / mode)

    files = {mode: sorted(path.name for path in (tmp_path / mode).iterdir()) for mode in MODES}
    assert files["sync"] == files["async"]
    for name in (name for name in files["sync"] if name.endswith(".pth")):
        states = [restore(tmp_path / mode / name) for mode in MODES]
        for part in ("state_dict", "optimizer", "param_schedulers"):
            one, other = (repr(state.get(part)) for state in states)
            assert one == other, (name, part)
        for weight, its_twin in zip(*(state["state_dict"].values() for state in states), strict=True):
            assert torch.equal(weight, its_twin)


@pytest.mark.parametrize(
    ("options", "saved"),
    [
        ({"interval": 2}, [2, 4, 6, 8, 10]),
        ({"interval": 3}, [3, 6, 9, 10]),
        ({"interval": 3, "save_last": False}, [3, 6, 9]),
        ({"interval": 2, "save_begin": 5, "save_last": False}, [5, 7, 9]),
        ({"interval": 2, "save_begin": 5}, [5, 7, 9, 10]),
        ({"interval": 2, "save_begin": 6, "save_last": False}, [6, 8, 10]),
        ({}, [10]),
        ({"interval": -1, "save_last": False}, []),
        ({"interval": 0, "save_last": False}, []),
    ],
)
def test_interval_begin_and_last_choose_the_epochs(
    train: Any, names: Names, tmp_path: Path, options: Mapping[str, Any], saved: list[int]
) -> None:
    train(CheckpointHook(**options), epochs=10, iters=1, work_dir=tmp_path)

    assert names(tmp_path) == sorted(f"epoch_{epoch}.pth" for epoch in saved)


def test_iterations_are_counted_where_by_epoch_is_false(train: Any, names: Names, tmp_path: Path) -> None:
    train(CheckpointHook(interval=3, by_epoch=False), epochs=2, iters=4, work_dir=tmp_path)

    assert names(tmp_path) == ["iter_3.pth", "iter_6.pth", "iter_8.pth"]
    assert restore(tmp_path / "iter_3.pth")["meta"]["iter"] == 3


def test_the_template_names_the_files(train: Any, names: Names, tmp_path: Path) -> None:
    hook = CheckpointHook(interval=1, filename_tmpl="step_{:03d}.pt", max_keep_ckpts=1)
    train(hook, epochs=3, work_dir=tmp_path)

    assert (tmp_path / "step_003.pt").exists()
    assert [info.name for info in list_checkpoints(tmp_path)] == ["step_003.pt"]


def test_out_dir_takes_the_name_of_the_run_and_does_not_grow(
    train: Any, names: Names, tmp_path: Path
) -> None:
    hook = CheckpointHook(interval=1, out_dir=str(tmp_path / "out"), max_keep_ckpts=1)
    train(hook, epochs=1, work_dir=tmp_path / "run")
    train(hook, epochs=2, work_dir=tmp_path / "run")

    assert names(tmp_path / "out" / "run") == ["epoch_2.pth"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run"]


def test_optimizer_and_schedulers_are_left_out_where_they_are_not_wanted(train: Any, tmp_path: Path) -> None:
    train(CheckpointHook(save_optimizer=False, save_param_scheduler=False), epochs=1, work_dir=tmp_path)

    saved = restore(tmp_path / "epoch_1.pth")
    assert "state_dict" in saved
    assert "optimizer" not in saved
    assert "param_schedulers" not in saved


def test_schedulers_are_saved_after_their_step(train: Any, tmp_path: Path) -> None:
    train(CheckpointHook(interval=1), ParamSchedulerHook(), epochs=1, work_dir=tmp_path)

    assert restore(tmp_path / "epoch_1.pth")["param_schedulers"][0]["last_epoch"] == 1


def test_the_checkpoint_knows_itself(train: Any, tmp_path: Path) -> None:
    train(CheckpointHook(interval=1, max_keep_ckpts=2), epochs=3, iters=2, work_dir=tmp_path)

    saved = restore(tmp_path / "epoch_3.pth")
    infos = saved["message_hub"]["runtime_info"]
    assert (saved["meta"]["epoch"], saved["meta"]["iter"]) == (3, 6)
    assert infos["last_ckpt"] == str(tmp_path / "epoch_3.pth")
    assert infos["keep_ckpt_ids"] == [2, 3]


class Uploader(Hook):
    """Reads what was saved, as soon as it is said to be there."""

    effects = Effects(reads={"checkpoints"}, writes={"elsewhere"})

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    async def after_save_checkpoint(self, runner: Any, path: str, meta: Mapping[str, Any]) -> None:
        await anyio.to_thread.run_sync(verify, path)
        self.seen.append((Path(path).name, meta["epoch"]))


@pytest.mark.parametrize("mode", MODES)
def test_listeners_hear_of_a_checkpoint_when_it_is_durable(train: Any, tmp_path: Path, mode: str) -> None:
    uploader = Uploader()
    train(
        CheckpointHook(interval=2, save_best="acc"),
        uploader,
        epochs=4,
        metrics=[{"acc": 1.0}],
        mode=mode,
        work_dir=tmp_path,
    )

    assert uploader.seen == [("best_acc_epoch_1.pth", 1), ("epoch_2.pth", 2), ("epoch_4.pth", 4)]


def test_a_resumed_run_goes_on_with_its_bookkeeping(
    train: Any, make_state: Callable[..., TrainState], names: Names, tmp_path: Path
) -> None:
    hook = CheckpointHook(interval=1, max_keep_ckpts=3)
    train(hook, epochs=4, work_dir=tmp_path)
    state = make_state(tmp_path, epochs=6)
    state.resume(tmp_path / "epoch_4.pth")
    train(CheckpointHook(interval=1, max_keep_ckpts=2), epochs=6, state=state)

    assert names(tmp_path) == ["epoch_5.pth", "epoch_6.pth"]
    assert state.message_hub.get_info("keep_ckpt_ids") == [5, 6]


def test_a_resumed_run_trims_what_it_remembers_to_the_new_limit(
    make_state: Callable[..., TrainState], tmp_path: Path
) -> None:
    state = make_state(tmp_path)
    state.message_hub.update_info("keep_ckpt_ids", [1, 2, 3])
    CheckpointHook(max_keep_ckpts=1).before_train(state)

    assert state.message_hub.get_info("keep_ckpt_ids") == [3]


@pytest.mark.s3
def test_a_missing_bucket_is_an_error_before_anything_is_trained(train: Any, s3_server: S3Server) -> None:
    hook = CheckpointHook(
        interval=1, out_dir="s3://no-such-bucket", backend_args=dict(s3_server.storage_options)
    )
    trained = Counting()
    with pytest.raises((StorageError, FileNotFoundError), match="no-such-bucket"):
        train(hook, trained, epochs=1)

    assert trained.iters == 0


@pytest.mark.s3
def test_wrong_credentials_are_an_error_before_anything_is_trained(train: Any, s3_server: S3Server) -> None:
    bucket = s3_server.make_bucket("forbidden")
    options = {**s3_server.storage_options, "secret": "not-the-right-one"}
    trained = Counting()
    with pytest.raises(StorageError) as caught:
        train(CheckpointHook(interval=1, out_dir=bucket, backend_args=options), trained, epochs=1)

    assert trained.iters == 0
    assert "not-the-right-one" not in str(caught.value)


class Counting(Hook):
    """Counts iterations."""

    effects = Effects()

    def __init__(self) -> None:
        self.iters = 0

    def after_train_iter(self, *_: Any, **__: Any) -> None:
        self.iters += 1


def test_a_loop_that_fires_no_other_point_saves_too(
    make_state: Callable[..., TrainState], tmp_path: Path
) -> None:
    state = make_state(tmp_path)
    with HookExecutor([CheckpointHook(interval=2, by_epoch=False, max_keep_ckpts=1)]) as executor:
        for step in range(5):
            executor.fire("after_train_iter", state, batch_idx=step, outputs=None)

    latest = find_latest(tmp_path)
    assert latest is not None
    assert (latest.name, latest.step) == ("iter_4.pth", 4)
    assert len(list_checkpoints(tmp_path)) == 1


def test_nowhere_to_save_is_an_error_that_names_the_argument(
    make_state: Callable[..., TrainState],
) -> None:
    state = make_state()
    state.work_dir = None  # type: ignore[assignment]
    with pytest.raises(ValueError, match="out_dir"):
        CheckpointHook().before_train(state)


def test_options_of_the_store_reach_fsspec(train: Any) -> None:
    hook = CheckpointHook(interval=1, out_dir="memory://options", backend_args={"asynchronous": False})
    train(hook, epochs=1)

    assert fsspec.filesystem("memory", asynchronous=False).exists("/options/run/epoch_1.pth")
