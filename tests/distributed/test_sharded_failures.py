"""A store that fails, holds or slows one rank of a sharded save: all ranks hear the same, nothing is half there."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asynchooks.checkpoint import list_checkpoints, verify
from asynchooks.errors import RankFailedError, StorageError
from asynchooks.testing import (
    Fault,
    FaultyLink,
    LinkFault,
    LinkFaultKind,
    Ranks,
    S3Server,
    SlowStore,
    run_ranks,
)
from tests.distributed.sharded_folder import assert_a_later_run_goes_on, steps_seen
from tests.distributed.sharded_saves import DEADLINE_S, HIT, LAST_NAME, SAVES, Saver

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.filterwarnings(
        "ignore:torch.distributed is disabled:UserWarning"
    ),  # plain DCP, in one process
]

METADATA, MANIFEST = f"{LAST_NAME}/.metadata", f"{LAST_NAME}.manifest.json"
NEXT = f"{LAST_NAME}.manifest.next.json"
DATA = f"{LAST_NAME}/__*.distcp"

released = threading.Event()


def burns() -> Exception:
    return StorageError("the disk burns")


def holds() -> Exception:
    """The call comes back when the rank has nothing more to do."""
    released.wait()
    return StorageError("it came back late")


def fails(
    rank: int, folder: str, victim: int, operation: Any, name: str, how: str
) -> list[tuple[str, float]]:
    """Save twice, once with a fault on the victim, and once more. What the rank is told, and after how long."""
    saver = Saver(rank, folder, deadline_s=60.0, store_deadline_s=DEADLINE_S if how == "holds" else 60.0)
    for before in range(1, HIT):
        saver.save(before, keep=None)
    if rank == victim:
        saver.faults.append(Fault({"holds": holds, "burns": burns}[how], operation, name, times=1))
    told = [saver.told_of(step, keep=None) for step in (HIT, HIT + 1)]
    released.set()
    saver.meeting.close()
    return told


def files_of(folder: Path) -> int:
    return len(list((folder / LAST_NAME).iterdir()))


@pytest.mark.parametrize(
    ("victim", "operation", "name"),
    [(1, "put", DATA), (0, "put", DATA), (0, "own", "*"), (0, "put", NEXT), (0, "put", METADATA)],
)
def test_where_one_rank_fails_all_hear_of_it_and_the_old_checkpoint_stays(
    tmp_path: Path, victim: int, operation: str, name: str
) -> None:
    told = run_ranks(3, fails, str(tmp_path), victim, operation, name, "burns")

    for rank, ((failed, _), (then, _)) in enumerate(told):
        assert "the disk burns" in failed
        is_own = rank == victim
        assert failed.startswith(
            "StorageError(None): step 3" if is_own else f"RankFailedError({victim}): step 3"
        )
        assert then == "saved 4"
    assert steps_seen(tmp_path) == [1, 2, 4]
    assert files_of(tmp_path) == 4, "the failed save has left nothing"


def test_a_failure_behind_the_instant_of_replacement_leaves_the_new_one(tmp_path: Path) -> None:
    told = run_ranks(2, fails, str(tmp_path), 0, "put", MANIFEST, "burns")

    assert [failed.partition("(")[0] for (failed, _), _ in told] == ["StorageError", "RankFailedError"]
    assert steps_seen(tmp_path) == [1, 3, 4]
    assert_a_later_run_goes_on(tmp_path)


def by_link(rank: int, url: str, options: list[dict[str, Any]]) -> str:
    saver = Saver(rank, url, deadline_s=60.0, storage_options=options[rank])
    told, _ = saver.told_of(1)
    saver.meeting.close()
    return told


@pytest.mark.s3
@pytest.mark.parametrize("kind", ["reset", "lost answer"])
def test_what_goes_wrong_once_on_one_ranks_way_to_the_store_is_tried_again(
    s3_server: S3Server, kind: LinkFaultKind
) -> None:
    url, options = f"{s3_server.make_bucket('shards')}/{uuid.uuid4().hex}", s3_server.storage_options
    fault = LinkFault(kind, method="PUT", path="*distcp*", times=1)
    with FaultyLink.to(s3_server.endpoint_url, fault) as link:
        faulty = {**options, "endpoint_url": link.endpoint_url}
        assert run_ranks(2, by_link, url, [options, faulty]) == ["saved 1"] * 2
        assert [request.fault for request in link.requests() if request.fault] == [kind]
    (info,) = list_checkpoints(url, storage_options=options)
    verify(info.url, storage_options=options)


@pytest.mark.parametrize(("victim", "name"), [(1, DATA), (0, DATA), (0, METADATA)])
def test_where_a_store_holds_one_rank_all_hear_of_it_within_the_stores_deadline(
    tmp_path: Path, victim: int, name: str
) -> None:
    told = run_ranks(2, fails, str(tmp_path), victim, "put", name, "holds")

    (failed, _), _ = told[victim]
    (heard, seconds), _ = told[1 - victim]
    assert failed.startswith("StorageUnavailableError(None): step 3")
    assert heard.startswith(f"RankFailedError({victim}): step 3")
    assert "made no progress" in heard
    assert seconds < 4 * DEADLINE_S
    assert [then for _, (then, _) in told] == ["saved 4"] * 2
    assert steps_seen(tmp_path) == [1, 2, 4]
    assert_a_later_run_goes_on(tmp_path)


def one_is_cancelled(rank: int, folder: str) -> list[str]:
    """Rank 1 cancels its second save while the first one is under way."""
    saver = Saver(rank, folder, deadline_s=60.0)
    told = ["", "", ""]

    async def save(step: int) -> None:
        try:
            await saver.checkpointer.save(saver.captured(step), name=SAVES[step], step=step)
            told[step - 1] = "saved"
        except RankFailedError as error:
            told[step - 1] = f"{error} {error.is_cancelled=}"

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(save, 1)
            await anyio.lowlevel.checkpoint()
            with anyio.CancelScope() as scope:
                if rank == 1:
                    scope.cancel()
                await save(2)
        await save(3)

    anyio.run(main)
    saver.meeting.close()
    return told


def test_a_save_that_one_rank_cancels_before_its_turn_fails_on_all_and_the_next_is_saved(
    tmp_path: Path,
) -> None:
    (first, failed, then), of_rank_1 = run_ranks(2, one_is_cancelled, str(tmp_path))

    assert [first, then] == ["saved"] * 2
    assert failed.endswith("rank 1 failed: its save was cancelled error.is_cancelled=True")
    assert of_rank_1 == ["saved", "", "saved"]
    assert steps_seen(tmp_path) == [1, 3]


def slow(rank: int, folder: str) -> str:
    saver = Saver(rank, folder)
    if rank == 1:
        saver.store.inner = SlowStore(saver.store.inner, latency_s=1.6 * DEADLINE_S, bytes_per_s=1e9)
    told, _ = saver.told_of(1)
    saver.meeting.close()
    return told


def test_a_rank_that_lives_may_be_late(tmp_path: Path) -> None:
    assert run_ranks(2, slow, str(tmp_path)) == ["saved 1"] * 2
    assert steps_seen(tmp_path) == [1]


def commits_slowly(rank: int, folder: str) -> str:
    """With the store's deadline that of the ranks, as `CheckpointHook` has it."""
    saver = Saver(rank, folder, store_deadline_s=DEADLINE_S)
    if rank == 0:
        saver.store.inner = SlowStore(saver.store.inner, latency_s=0.15 * DEADLINE_S, bytes_per_s=1e9)
    told, _ = saver.told_of(1, keep=None)
    saver.meeting.close()
    return told


@pytest.mark.crash
def test_a_rank_that_dies_when_it_has_arrived_fails_nobody(tmp_path: Path) -> None:
    with Ranks(2, commits_slowly, str(tmp_path)) as ranks:
        while not (tmp_path / f"{SAVES[1]}.manifest.next.json").exists():
            ranks.wait([], 0.0)
        ranks.kill(1)
        outcomes = ranks.outcomes()

    assert [outcome.result for outcome in outcomes] == ["saved 1", None]
    assert steps_seen(tmp_path) == [1]
