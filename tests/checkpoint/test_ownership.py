"""Two processes and one folder: who may write, who hears of the other, and when."""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from asynchooks.checkpoint import Checkpointer, Store, capture, list_checkpoints, open_store
from asynchooks.checkpoint._owner import OWNER_FILE, Owner
from asynchooks.checkpoint._process import Process, is_running, this_process, writer_id
from asynchooks.errors import CheckpointConflictError
from asynchooks.testing import FaultyStore

PROGRAM = Path(__file__).with_name("saving_program.py")


@dataclass(frozen=True)
class Place:
    """A fresh folder."""

    url: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def owner(self) -> Owner:
        return Owner.from_json(b"".join(open_store(self.url, self.options).read(OWNER_FILE)))

    def steps(self) -> list[int]:
        return [info.step for info in list_checkpoints(self.url, storage_options=self.options)]

    def names(self) -> list[str]:
        return sorted(open_store(self.url, self.options).entries().keys() - {OWNER_FILE})


class Saver:
    """Another process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, what: str, step: int = 0, *, where: str = "here") -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{where} {what} {step}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


StartSaver = Callable[[Place, str], Saver]


@pytest.fixture
def start() -> Iterator[StartSaver]:
    with ExitStack() as stack:

        def start_one(place: Place, run_id: str) -> Saver:
            order = json.dumps({"url": place.url, "options": dict(place.options), "run_id": run_id})
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, str(PROGRAM), order],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
                )
            )
            stack.callback(process.kill)
            return Saver(process)

        yield start_one


@pytest.fixture(params=["local", pytest.param("moto", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        return Place(str(tmp_path / "run"))
    server = request.getfixturevalue("moto_server")
    return Place(f"{server.make_bucket('owned')}/{uuid.uuid4().hex}", server.storage_options)


def save(saves: Checkpointer, step: int) -> None:
    saves.save_sync(capture({"w": torch.full((4,), float(step))}), name=f"iter_{step}.pth", step=step)


def checkpointer(place: Place, run_id: str) -> Checkpointer:
    return Checkpointer(place.url, storage_options=place.options, run_id=run_id)


def test_a_second_run_on_this_machine_is_refused_before_it_writes(place: Place, start: StartSaver) -> None:
    first, second = start(place, "one"), start(place, "two")
    assert first.ask("save", 1) == "done"

    for what in ("check", "save"):
        answer = second.ask(what, 2)
        assert answer.startswith("CheckpointConflictError: ")
        assert f"run one (process {first.process.pid} on " in answer
        assert "saving step 1" in answer
        assert "give each its own folder" in answer
    assert first.ask("save", 3) == "done"
    assert place.steps() == [1, 3]


def test_a_run_that_was_killed_is_carried_on_without_a_word(
    place: Place, start: StartSaver, caplog: pytest.LogCaptureFixture
) -> None:
    first = start(place, "one")
    assert first.ask("save", 1) == "done"
    first.kill()

    with caplog.at_level(logging.WARNING):
        save(checkpointer(place, "one"), 2)

    assert place.steps() == [1, 2]
    assert caplog.text == ""


def test_a_folder_that_another_run_never_released_is_taken_over_with_a_warning(
    place: Place, start: StartSaver, caplog: pytest.LogCaptureFixture
) -> None:
    first = start(place, "one")
    assert first.ask("save", 1) == "done"
    first.kill()

    with caplog.at_level(logging.WARNING):
        checkpointer(place, "two").check_sync()

    assert f"run two takes over {place.url} from run one (process {first.process.pid}" in caplog.text
    assert "is gone" in caplog.text


def test_a_folder_that_was_released_is_taken_without_a_word(
    place: Place, start: StartSaver, caplog: pytest.LogCaptureFixture
) -> None:
    first = start(place, "one")
    assert first.ask("save", 1) == "done"
    assert first.ask("release") == "done"

    with caplog.at_level(logging.WARNING):
        saves = checkpointer(place, "two")
        save(saves, 2)
        saves.release_sync()

    assert caplog.text == ""
    assert first.ask("save", 3) == "done"
    assert place.steps() == [1, 2, 3]


@pytest.mark.s3
def test_a_run_that_is_carried_on_elsewhere_fences_the_process_that_was_left_for_dead(
    moto_server: Any, start: StartSaver, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place(f"{moto_server.make_bucket('fenced')}/{uuid.uuid4().hex}", moto_server.storage_options)
    zombie = start(place, "one")
    assert zombie.ask("save", 1) == "done"
    resumed = checkpointer(place, "one")

    with caplog.at_level(logging.WARNING):
        save(resumed, 2)
    answer = zombie.ask("save", 3)

    assert "lives; if it still runs, its next save fails" in caplog.text
    assert answer.startswith("CheckpointConflictError: step 3: ")
    assert f"run one (process {os.getpid()} on " in answer
    assert place.names() == [f"iter_{n}.pth{end}" for n in (1, 2) for end in ("", ".manifest.json")]
    save(resumed, 4)


def test_a_forked_child_does_not_own_its_parents_folder(place: Place, start: StartSaver) -> None:
    parent = start(place, "one")
    assert parent.ask("save", 1) == "done"

    answer = parent.ask("save", 2, where="child")

    assert answer.startswith("CheckpointConflictError: ")
    assert f"belongs to process {parent.process.pid}, of which this one" in answer
    assert parent.ask("save", 3) == "done"
    assert place.steps() == [1, 3]


def test_a_fork_keeps_no_lock_when_the_parent_dies(tmp_path: Path, start: StartSaver) -> None:
    place = Place(str(tmp_path))
    reader, writer = os.pipe()
    saves = checkpointer(place, "one")
    saves.check_sync()
    child = os.fork()
    if not child:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    saves.release_sync()
    try:
        assert start(place, "two").ask("check") == "done"
    finally:
        os.close(reader)
        os.close(writer)
        os.waitpid(child, 0)


def test_several_checkpointers_of_one_process_share_a_folder(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = checkpointer(place, "one"), checkpointer(place, "two")
    with caplog.at_level(logging.WARNING):
        for step in range(1, 5):
            save((one, two)[step % 2], step)
        one.release_sync()
        save(two, 5)

    assert place.steps() == [1, 2, 3, 4, 5]
    assert caplog.text == ""
    assert not place.owner().released


def test_a_checkpointer_that_is_dropped_keeps_nobody_off(tmp_path: Path, start: StartSaver) -> None:
    place = Place(str(tmp_path))
    checkpointer(place, "one").check_sync()
    gc.collect()  # the event loop's leavings hold it until then

    assert start(place, "one").ask("check") == "done"


def test_reading_the_owner_file_in_the_same_process_does_not_give_the_folder_away(
    tmp_path: Path, start: StartSaver
) -> None:
    place = Place(str(tmp_path))
    saves = checkpointer(place, "one")
    saves.check_sync()
    assert place.owner().run_id == "one"

    assert start(place, "two").ask("check").startswith("CheckpointConflictError")
    save(saves, 1)


def test_an_owner_file_that_somebody_deletes_is_written_again(place: Place) -> None:
    saves = checkpointer(place, "one")
    save(saves, 1)
    open_store(place.url, place.options).delete(OWNER_FILE)

    save(saves, 2)

    assert place.owner().step == 2


def test_an_owner_file_of_another_kind_is_taken_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / OWNER_FILE).write_text("{}")

    with caplog.at_level(logging.WARNING):
        Checkpointer(tmp_path).check_sync()

    assert "run unknown" in caplog.text


def test_a_claim_whose_answer_was_lost_is_no_conflict(moto_server: Any) -> None:
    place = Place(f"{moto_server.make_bucket('lost')}/{uuid.uuid4().hex}", moto_server.storage_options)

    class Forgetful:
        """Takes the write, and then finds its own version there: what a retried conditional put sees."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def write(self, text: bytes) -> bool:
            self.inner.write(text)
            return bool(self.inner.write(text)) if lost.pop() else True

    class LossyStore(FaultyStore):
        def owner_file(self, name: str) -> Any:
            return Forgetful(open_store(place.url, place.options).owner_file(name))  # type: ignore[attr-defined]

    lost = [False, True, False, False]
    saves = Checkpointer(LossyStore(open_store(place.url, place.options)))

    save(saves, 1)


def test_a_reused_process_id_is_not_the_owner() -> None:
    mine = this_process()

    assert is_running(mine)
    assert is_running(Process(mine.host, mine.pid, f"{mine.birth}0")) is False
    assert is_running(Process(mine.host, mine.pid, "other-boot/pid:[1]/5")) is None
    assert is_running(Process("elsewhere", 1, "")) is None
    assert writer_id() == writer_id()


def test_a_wrong_store_type_is_no_owner(tmp_path: Path) -> None:
    """A store of the six methods alone gets a claim that is read before it is written."""

    class Plain:
        def __init__(self, inner: Store) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            if name == "owner_file":
                raise AttributeError(name)
            return getattr(self.inner, name)

    store: Any = Plain(open_store(tmp_path))
    saves = Checkpointer(store, run_id="one")
    save(saves, 1)
    owner = Owner("two", "other", Process("far", 1, ""), 0.0)
    (tmp_path / OWNER_FILE).write_bytes(owner.to_json())

    with pytest.raises(CheckpointConflictError, match="run two"):
        save(saves, 2)
