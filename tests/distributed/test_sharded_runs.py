"""A run on ranks saves shards from the background, and goes on from them: itself, on fewer ranks, on more."""

import errno
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from fsspec.implementations.local import LocalFileSystem

from asynchooks import Effects, Hook
from asynchooks.checkpoint import list_checkpoints, restore, verify
from asynchooks.errors import AsyncHooksError
from asynchooks.testing import run_ranks
from tests.distributed.runs import run_of, trained

pytestmark = pytest.mark.ranks


def trains(rank: int, folder: str, strategy: str | None, options: dict[str, Any]) -> Any:
    hook = {"interval": 2, "by_epoch": False, "max_keep_ckpts": 2, **options.pop("checkpoint", {})}
    losses, weights, _ = trained(
        folder,
        strategy=strategy and {"type": strategy},
        default_hooks={"checkpoint": hook, "logger": None},
        train_cfg={"by_epoch": False, "max_iters": options.pop("max_iters", 6)},
        **options,
    )
    return losses, weights


def run(folder: Path, ranks: int, strategy: str | None, **options: Any) -> Any:
    return run_ranks(
        ranks, trains, str(folder), strategy, {"batch_size": 12 // ranks, **options}, with_group=False
    )


@pytest.mark.parametrize("strategy", ["FSDP2", "DDP"])
def test_shards_from_the_background_are_those_of_a_run_that_saves_inline(
    tmp_path: Path, strategy: str
) -> None:
    hook = {"checkpoint": {"format": "sharded"}}
    run(tmp_path / "async", 2, strategy, **hook)
    run(tmp_path / "sync", 2, strategy, mode="sync", **hook)

    for name in ("iter_4", "iter_6"):
        saved, expected = (restore(tmp_path / mode / name) for mode in ("async", "sync"))
        for part in ("state_dict", "optimizer"):
            assert saved[part].keys() == expected[part].keys()
            for key, value in expected[part].items():
                assert _same(saved[part][key], value), key
    infos = list_checkpoints(tmp_path / "async")
    assert [info.name for info in infos] == ["iter_4", "iter_6"]
    assert [verify(info.url).layout for info in infos] == ["sharded", "sharded"]
    assert {path.name for path in (tmp_path / "async").iterdir() if path.is_dir()} >= {"iter_4", "iter_6"}


def test_a_run_goes_on_from_its_shards_bit_identically(tmp_path: Path) -> None:
    expected = run(tmp_path / "whole", 2, "FSDP2")
    run(tmp_path / "parts", 2, "FSDP2", max_iters=4)
    came = run(tmp_path / "parts", 2, "FSDP2", resume=True)

    assert [losses for losses, _ in came] == [losses[4:] for losses, _ in expected]
    assert came[0][1] == expected[0][1]


@pytest.mark.parametrize(("ranks", "strategy"), [(1, None), (3, "FSDP2"), (4, "DDP")])
def test_a_run_goes_on_from_its_shards_on_other_ranks(
    tmp_path: Path, ranks: int, strategy: str | None
) -> None:
    expected = run(tmp_path / "whole", 2, "FSDP2")
    run(tmp_path / "parts", 2, "FSDP2", max_iters=4)
    came = run(tmp_path / "parts", ranks, strategy, resume=True)

    for name, numbers in expected[0][1].items():
        assert came[0][1][name] == pytest.approx(numbers, abs=1e-6), name


def test_a_run_falls_back_past_shards_that_are_damaged(tmp_path: Path) -> None:
    expected = run(tmp_path, 2, "FSDP2")
    data = min((tmp_path / "iter_6").glob("__1_0.*.distcp"))
    with data.open("r+b") as file:
        file.seek(data.stat().st_size // 2)
        file.write(b"damage")

    came = run(tmp_path, 2, "FSDP2", resume=True)
    assert [losses for losses, _ in came] == [losses[4:] for losses, _ in expected]


class RefusingFileSystem(LocalFileSystem):  # type: ignore[misc] # fsspec has no types
    """A local folder whose shards this rank may not read."""

    protocol = "refusing"
    refuses = True

    def _open(self, path: str, *args: Any, **options: Any) -> Any:
        if self.refuses and path.endswith(".distcp"):
            raise PermissionError(errno.EACCES, "refused", path)
        return super()._open(path, *args, **options)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(path).removeprefix("refusing://").rstrip("/")


def may_not_read(rank: int, folder: str) -> str:
    fsspec.register_implementation("refusing", RefusingFileSystem, clobber=True)
    RefusingFileSystem.refuses = rank == 1
    with pytest.raises(AsyncHooksError) as raised:
        trains(rank, folder, "FSDP2", {"resume": f"refusing://{folder}/iter_6"})
    return f"{type(raised.value).__name__}: {raised.value}"


def test_where_one_rank_may_not_read_the_others_are_told_of_it(tmp_path: Path) -> None:
    run(tmp_path, 2, "FSDP2")

    told, own = run_ranks(2, may_not_read, str(tmp_path), with_group=False)
    assert told.startswith("RankFailedError: rank 1 could not read refusing://")
    assert own.startswith("StorageDeniedError")


def _same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


class SlowFileSystem(LocalFileSystem):  # type: ignore[misc] # fsspec has no types
    """A local folder that takes its time for every file, and has no room for one."""

    protocol = "slow"
    full_at = "nothing"

    def mv(self, path1: str, path2: str, **options: Any) -> None:
        time.sleep(0.04)
        if self.full_at in path2:
            raise OSError(errno.ENOSPC, "full", path2)
        super().mv(path1, path2, **options)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(path).removeprefix("slow://").rstrip("/")


class Sees(Hook):
    """Sees the newest checkpoint after each iteration."""

    priority = "LOWEST"
    effects = Effects()  # else it would see what an inline save leaves
    changes_state = False

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.newest: list[int] = []

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.newest.append(max((info.step for info in list_checkpoints(self.folder)), default=0))


class Hears(Hook):
    """Hears what is saved; in a hook of its own, since who listens waits for what it will hear."""

    def __init__(self) -> None:
        self.saved: list[str] = []

    def after_save_checkpoint(self, runner: Any, path: str, meta: Any) -> None:
        self.saved.append(path.rpartition("/")[2])


def overtakes(rank: int, folder: str) -> Any:
    fsspec.register_implementation("slow", SlowFileSystem, clobber=True)
    sees, hears = Sees(f"{folder}/run"), Hears()
    hook = {"format": "sharded", "interval": 1, "max_keep_ckpts": 2, "out_dir": f"slow://{folder}"}
    _, weights, _ = trained(
        f"{folder}/run",
        strategy={"type": "FSDP2"},
        custom_hooks=[sees, hears],
        default_hooks={"checkpoint": {**hook, "by_epoch": False}, "logger": None},
        train_cfg={"by_epoch": False, "max_iters": 5},
    )
    return hears.saved, sees.newest, weights


def test_saves_that_training_overtakes_are_committed_in_order_the_last_one_after_its_end(
    tmp_path: Path,
) -> None:
    told = run_ranks(2, overtakes, str(tmp_path), with_group=False)
    for saved, newest, _ in told:
        assert saved == [f"iter_{step}" for step in range(1, 6)]
        assert newest[-1] <= 3, "two more were in flight when the last iteration had ended"
    infos = list_checkpoints(tmp_path / "run")
    assert [verify(info.url).name for info in infos] == ["iter_4", "iter_5"]
    last = restore(infos[-1].url)["state_dict"]
    assert {name: tensor.flatten().tolist() for name, tensor in last.items()} == told[0][2]
    assert {path.name for path in (tmp_path / "run").glob("iter_*/")} == {"iter_4", "iter_5"}


def fills_up(rank: int, folder: str) -> tuple[str, int]:
    """Rank 1's disk has no room for its part of the second save. What ended the rank, and after which iteration."""
    fsspec.register_implementation("slow", SlowFileSystem, clobber=True)
    SlowFileSystem.full_at = "iter_2/__1_" if rank == 1 else "nothing"
    hook = {"format": "sharded", "interval": 1, "out_dir": f"slow://{folder}", "by_epoch": False}
    runner = run_of(
        f"{folder}/run",
        strategy={"type": "FSDP2"},
        default_hooks={"checkpoint": hook, "logger": None},
        train_cfg={"by_epoch": False, "max_iters": 1000},
    )
    told = "nothing"
    try:
        runner.train()
    except* AsyncHooksError as errors:  # several, where a later save has failed too by then
        told = "; ".join(f"{error} {error.__cause__}" for error in leaves(errors))
    return told, runner.iter


def leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error


def test_a_save_that_fails_on_one_rank_ends_all_at_the_same_iteration(tmp_path: Path) -> None:
    (heard, iteration), (failed, where) = run_ranks(2, fills_up, str(tmp_path), with_group=False)

    assert "rank 1 failed: StorageFullError" in heard
    assert "StorageFullError" in failed
    assert iteration == where
    names = [info.name for info in list_checkpoints(tmp_path / "run")]
    assert names[0] == "iter_1"
    assert "iter_2" not in names
