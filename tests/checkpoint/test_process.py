"""Large files written by a process of its own: as if by a thread, whatever happens to that process."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import psutil
import pytest

from asynchooks.checkpoint import Checkpointer, Content, Store, open_store, sweep
from asynchooks.checkpoint._capture._staging import shared_staging
from asynchooks.checkpoint._storage._fsspec import FsspecStore
from asynchooks.checkpoint._storage._local import LocalStore
from asynchooks.checkpoint._storage._process import ProcessStore, describe
from asynchooks.errors import ConfigError, StorageDeniedError, StorageFullError, StorageUnavailableError
from asynchooks.testing import CheckpointSuite, StoreSuite

from .odd_filesystem import PipelinedFileSystem

ROOT = Path(__file__).parents[2]
MIB = 2**20
LARGE = Content.of(bytes(2 * MIB), b"end")
SECRET = "opensesame-0815"


@pytest.fixture(autouse=True)
def odd_file_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    for name, implementation in (("odd", "OddFileSystem"), ("lonely", "LonelyFileSystem")):
        fsspec.register_implementation(
            name, f"tests.checkpoint.odd_filesystem.{implementation}", clobber=True
        )


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Neither a process nor its socket nor its log."""

    def here() -> tuple[set[psutil.Process], list[str]]:
        links = []
        for each in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):  # the one of this very listing
                links.append(str(each.readlink()))
        mine = [link for link in links if link.startswith("socket:") or "asynchooks-writer" in link]
        return set(psutil.Process().children()), sorted(mine)

    before = here()
    yield
    if here() != before:  # cycles may hold it
        gc.collect()
    assert here() == before


def odd(folder: Path, **options: Any) -> ProcessStore:
    deadline_s = options.pop("deadline_s", 30.0)
    store = open_store(f"odd://{folder}", {"owner": os.getpid(), **options}, deadline_s=deadline_s)
    assert isinstance(store, ProcessStore)
    return store


def whole(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".tmp"))


class TestOverLocal(StoreSuite, CheckpointSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = open_store(tmp_path / "run", writer="process")
        assert isinstance(store, ProcessStore)
        yield store
        store.close()


class TestOverFsspec(StoreSuite, CheckpointSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = odd(tmp_path / "run")
        yield store
        store.close()


def test_the_store_decides_what_writes(tmp_path: Path) -> None:
    assert isinstance(open_store(tmp_path), LocalStore)
    assert isinstance(open_store("memory://x"), FsspecStore)
    assert isinstance(open_store(f"odd://{tmp_path}"), ProcessStore)
    assert isinstance(open_store(f"odd://{tmp_path}", writer="thread"), FsspecStore)
    assert isinstance(open_store(tmp_path, writer="process"), ProcessStore)
    with pytest.raises(ConfigError, match="'processes'"):
        open_store(tmp_path, writer="processes")  # type: ignore[arg-type]


def test_what_another_package_reaches_needs_no_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("s3", "no.such.package", clobber=True, errtxt="install it")
    try:
        described = describe("s3://bucket/run", {"key": "k"})
    finally:
        fsspec.register_implementation("s3", "s3fs.S3FileSystem", clobber=True, errtxt="Install s3fs")

    assert described is not None
    assert described["implementations"] == {}


def test_what_lives_in_this_process_is_written_by_a_thread(tmp_path: Path) -> None:
    options = {"callback": print}

    assert isinstance(open_store(f"odd://{tmp_path}", options), FsspecStore)
    for url, unsuitable in ((f"odd://{tmp_path}", options), ("memory://x", {})):
        with pytest.raises(ConfigError, match="exist in this one alone"):
            open_store(url, unsuitable, writer="process")


def test_a_small_file_starts_no_process(tmp_path: Path) -> None:
    store = odd(tmp_path)
    store.put("small", Content.of(b"x"))

    assert store.writer_pid is None


def test_the_process_is_started_once_and_loads_no_torch(tmp_path: Path) -> None:
    store = odd(tmp_path)
    store.put("a.pth", LARGE)
    pid = store.writer_pid
    store.put("b.pth", LARGE)

    assert store.writer_pid == pid
    assert "torch" not in Path(f"/proc/{pid}/maps").read_text()


def test_credentials_are_on_no_command_line_and_in_no_environment(tmp_path: Path) -> None:
    store = odd(tmp_path, password=SECRET)
    store.put("a.pth", LARGE)

    for place in ("cmdline", "environ"):
        assert SECRET.encode() not in Path(f"/proc/{store.writer_pid}/{place}").read_bytes()


def test_captured_memory_is_not_copied_and_not_kept(tmp_path: Path) -> None:
    store = odd(tmp_path)
    store.put("a.pth", LARGE)
    shared_staging().share()
    memory = shared_staging().lease(32 * MIB)
    memory[:] = 7
    tracemalloc.start()
    try:
        store.put("b.pth", Content.of(b"head", memory.data[3 : 20 * MIB], b"tail"))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert (tmp_path / "b.pth").read_bytes() == b"head" + bytes([7]) * (20 * MIB - 3) + b"tail"
    assert peak_bytes < MIB
    assert "asynchooks-staging" not in Path(f"/proc/{store.writer_pid}/maps").read_text()


@pytest.mark.parametrize("step", ["init", "open", "write", "close", "mv"])
def test_a_writer_that_is_killed_anywhere_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    store = odd(tmp_path / "run", at=step, what="kill", once=str(tmp_path / "once"))

    with caplog.at_level(logging.WARNING):
        store.put("a.pth", LARGE)

    assert whole(tmp_path / "run") == ["a.pth"]
    assert b"".join(store.read("a.pth")) == b"".join(LARGE.buffers)
    assert "SIGKILL" in caplog.text


@pytest.mark.parametrize("step", ["open", "mv"])
def test_a_writer_that_is_killed_again_and_again_is_an_error_at_once(tmp_path: Path, step: str) -> None:
    (tmp_path / "a.pth").write_bytes(b"old")
    store = odd(tmp_path, at=step, what="kill", password=SECRET)

    with pytest.raises(
        StorageUnavailableError, match=rf"a\.pth.*SIGKILL.*kill at {step}.*2 attempts"
    ) as told:
        store.put("a.pth", LARGE)

    assert (tmp_path / "a.pth").read_bytes() == b"old"
    assert SECRET not in str(told.value)
    sweep(store, older_than_s=-5)
    assert whole(tmp_path) == sorted(store.entries()) == ["a.pth"]


@pytest.mark.parametrize(("step", "what"), [("open", "hang"), ("mv", "freeze")])
def test_a_writer_that_hangs_is_ended_at_the_deadline(tmp_path: Path, step: str, what: str) -> None:
    store = odd(tmp_path, at=step, what=what, deadline_s=2.0)

    with pytest.raises(StorageUnavailableError, match="said nothing for 2 s"):
        store.put("a.pth", LARGE)

    assert whole(tmp_path) == []
    assert store.writer_pid is None


def test_a_stop_is_heard_while_the_writer_hangs(tmp_path: Path) -> None:
    store = odd(tmp_path, at="write", what="hang", deadline_s=2.0)

    def stop(_nbytes: int) -> None:
        raise StorageFullError("enough")

    with pytest.raises(StorageFullError, match="enough"):
        store.put("a.pth", LARGE, progress=stop)

    assert whole(tmp_path) == []


def test_a_stopped_put_keeps_the_writer(tmp_path: Path) -> None:
    store = odd(tmp_path)
    store.put("a.pth", LARGE)
    pid = store.writer_pid

    def stop(_nbytes: int) -> None:
        raise StorageFullError("enough")

    with pytest.raises(StorageFullError):
        store.put("b.pth", LARGE, progress=stop)
    store.put("c.pth", LARGE)

    assert store.writer_pid == pid
    assert sorted(store.entries()) == ["a.pth", "c.pth"]


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/false", ""])
def test_a_writer_that_does_not_start_costs_speed_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, python: str
) -> None:
    url = f"odd://{tmp_path}"
    description = describe(url, {})
    assert description is not None
    store = ProcessStore(open_store(url, writer="thread"), description, python=python)

    with caplog.at_level(logging.WARNING):
        store.put("a.pth", LARGE)
        store.put("b.pth", LARGE)

    assert sorted(store.entries()) == ["a.pth", "b.pth"]
    assert caplog.text.count("cannot be used") == 1


def test_files_that_no_other_process_sees_are_written_here(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(f"lonely://{tmp_path}")

    with caplog.at_level(logging.WARNING):
        store.put("a.pth", LARGE)

    assert store.entries()["a.pth"].nbytes == LARGE.nbytes
    assert "does not appear in this process" in caplog.text


def test_an_error_is_the_one_that_a_thread_would_raise(tmp_path: Path) -> None:
    options = {"owner": 1, "at": "open", "what": "deny"}
    told = []
    for writer in ("thread", "process"):
        with pytest.raises(StorageDeniedError) as error:
            open_store(f"odd://{tmp_path}", options, writer=writer).put("a.pth", LARGE)
        told.append(str(error.value))

    assert told[0] == told[1]
    assert "this is not yours" in told[0]


def test_what_the_terminal_and_the_scheduler_send_to_all_does_not_end_it(tmp_path: Path) -> None:
    store = odd(tmp_path)
    store.put("a.pth", LARGE)
    pid = store.writer_pid
    assert pid is not None
    assert os.getsid(pid) != os.getsid(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    store.put("b.pth", LARGE)

    assert store.writer_pid == pid


def test_a_writer_that_dies_between_two_puts_is_replaced(tmp_path: Path) -> None:
    store = odd(tmp_path)
    store.put("a.pth", LARGE)
    pid = store.writer_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    store.put("b.pth", LARGE)

    assert sorted(store.entries()) == ["a.pth", "b.pth"]


def test_a_closed_store_may_be_used_again(tmp_path: Path) -> None:
    store = odd(tmp_path)
    store.put("a.pth", LARGE)
    store.close()
    assert store.writer_pid is None
    store.put("b.pth", LARGE)

    assert sorted(store.entries()) == ["a.pth", "b.pth"]


def test_many_stores_and_threads_share_a_folder(tmp_path: Path) -> None:
    stores = [odd(tmp_path), odd(tmp_path)]
    threads = [
        threading.Thread(target=partial(stores[number % 2].put, f"{number}.pth", LARGE))
        for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(stores[0].entries()) == 6
    assert len({store.writer_pid for store in stores}) == 2


def test_a_forked_child_has_a_writer_of_its_own(tmp_path: Path) -> None:
    store = odd(tmp_path)
    store.put("a.pth", LARGE)
    pid = store.writer_pid
    child = os.fork()
    if not child:
        try:
            store.put("b.pth", LARGE)
            os._exit(0 if store.writer_pid != pid else 2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store.put("c.pth", LARGE)

    assert store.writer_pid == pid
    assert sorted(store.entries()) == ["a.pth", "b.pth", "c.pth"]


def test_the_store_may_be_used_before_the_file_is_visible(tmp_path: Path) -> None:
    store = odd(tmp_path)

    def before_visible() -> None:
        assert whole(tmp_path) == []
        store.put("small", Content.of(b"x"))
        store.put("large", LARGE)

    store.put("a.pth", LARGE, before_visible=before_visible)

    assert sorted(store.entries()) == ["a.pth", "large", "small"]


def test_a_writer_that_dies_after_the_word_was_given_asks_again(tmp_path: Path) -> None:
    store = odd(tmp_path / "run", at="mv", what="kill", once=str(tmp_path / "once"))
    asked: list[list[str]] = []

    store.put("a.pth", LARGE, before_visible=lambda: asked.append(whole(tmp_path / "run")))

    assert asked == [[], []]


def test_a_full_sftp_server_is_heard_before_the_file_appears(tmp_path: Path) -> None:
    store = FsspecStore(PipelinedFileSystem(), str(tmp_path), url=f"sftp://server{tmp_path}")

    with pytest.raises(StorageFullError, match="No space left"):
        store.put("a.pth", LARGE)

    assert list(tmp_path.iterdir()) == []


def test_a_checkpointer_takes_the_choice(tmp_path: Path) -> None:
    saves = Checkpointer(tmp_path, writer="process")

    assert saves.url == str(tmp_path)
    assert isinstance(saves._store, ProcessStore)
    memory = shared_staging().lease(2 * MIB)
    assert shared_staging().place_of(memory.data) is not None  # captures go where the writer can map them


def test_a_pattern_comes_through_byte_for_byte(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 255, 5 * MIB + 3, np.uint8)
    shared_staging().share()
    memory = shared_staging().lease(data.nbytes)
    np.copyto(memory, data)
    store = odd(tmp_path)
    store.put("a.pth", Content.of(memory.data[MIB:], data[:MIB].data, memory.data[:MIB]))

    assert b"".join(store.read("a.pth")) == data[MIB:].tobytes() + data[:MIB].tobytes() * 2
