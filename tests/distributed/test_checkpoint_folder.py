"""The folder of a run's checkpoints is opened by all ranks: what it tells of its address, and what it leaves."""

import threading
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from asynchooks.hooks.checkpoint._opening import open_folder
from asynchooks.runner import MessageHub
from asynchooks.testing import run_ranks

pytestmark = pytest.mark.ranks

URL = "refusing://joe:hunter2@host/runs"


class Refusing(MemoryFileSystem):  # type: ignore[misc] # fsspec is untyped
    """A store that can be opened, and takes no files."""

    protocol = "refusing"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.rpartition("@")[2].strip("/")

    def pipe_file(self, *args: Any, **options: Any) -> None:
        raise PermissionError("denied")

    def _open(self, *args: Any, **options: Any) -> None:
        raise PermissionError("denied")


def opened(url: str, options: dict[str, Any]) -> Any:
    runner = SimpleNamespace(message_hub=MessageHub(), work_dir=None)
    return open_folder(url, options, runner, form="sharded", deadline_s=5.0)


def told_and_left(url: str, options: dict[str, Any]) -> tuple[str, list[str]]:
    """How opening fails, and the threads that stay."""
    before = threading.enumerate()
    with pytest.raises(Exception) as raised:
        opened(url, options)
    new = [thread for thread in threading.enumerate() if thread not in before and "asynchooks" in thread.name]
    for thread in new:
        thread.join(5.0)
    return f"{raised.type.__name__}: {raised.value}", [thread.name for thread in new if thread.is_alive()]


def opens(rank: int) -> tuple[tuple[str, list[str]], tuple[str, list[str]], str]:
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    unchecked = told_and_left(URL, {})
    unopened = told_and_left("/nowhere/runs", {} if rank == 0 else {"no_such_option": 1})
    folder = opened("memory://joe:hunter2@host/runs", {})
    name = folder._party.meeting.name
    folder.close()
    return unchecked, unopened, name


@pytest.fixture(scope="module")
def results() -> list[Any]:
    return run_ranks(2, opens)


def test_a_folder_that_one_rank_cannot_use_is_an_error_on_all(results: list[Any]) -> None:
    unchecked, unopened = ([each[part][0] for each in results] for part in (0, 1))

    assert [text.partition(":")[0] for text in unchecked] == ["StorageDeniedError", "RankFailedError"]
    assert [text.partition(":")[0] for text in unopened] == ["RankFailedError", "UnknownOptionError"]


def test_credentials_in_the_address_stand_in_no_error_and_not_where_ranks_meet(results: list[Any]) -> None:
    texts = [text for unchecked, _, name in results for text in (unchecked[0], name)]

    assert all("host/runs" in text for text in texts)
    assert not [text for text in texts if "joe" in text or "hunter2" in text]


def test_a_folder_that_cannot_be_used_leaves_no_thread_and_no_connection(results: list[Any]) -> None:
    assert [left for *failed, _ in results for _, left in failed] == [[]] * 4
