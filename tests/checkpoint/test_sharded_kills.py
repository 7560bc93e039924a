"""Stopped at each single change that a sharded save, replacement, removal or pruning makes to the store.

Readers then see the old, the new or, where there was none before, nothing; what they see is whole, for plain readers
of DCP too; and a sweep leaves nothing but that, or a next save takes the place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from asynchooks.checkpoint import (
    Content,
    KeepLast,
    NestingStore,
    inspect_folder,
    list_checkpoints,
    open_store,
    prune,
    sweep,
    verify,
)
from asynchooks.checkpoint._catalog import committed
from asynchooks.checkpoint._commit import remove
from asynchooks.checkpoint._storage import nesting

from .dcp_folder import Sharded

pytestmark = pytest.mark.crash


class Killed(BaseException):
    """Not an Exception: nobody cleans up after it, as after a SIGKILL."""


@dataclass
class Fuse:
    """Counts changes down; at 0 the process is gone, just before the change or just after it."""

    changes_left: int
    is_after: bool

    def passes(self, change: Callable[[], None]) -> None:
        if self.changes_left == 0 and self.is_after:
            change()
        self.changes_left -= 1
        if self.changes_left < 0:
            raise Killed
        change()


@dataclass
class MortalStore:
    """The inner store until the fuse has burnt down."""

    inner: NestingStore
    fuse: Fuse
    url: str = field(init=False)
    parallel_reads: int = 1

    def __post_init__(self) -> None:
        self.url = self.inner.url
        self.read, self.read_into = self.inner.read, self.inner.read_into
        self.entries, self.folders = self.inner.entries, self.inner.folders
        self.is_being_written = self.inner.is_being_written

    def put(self, name: str, content: Content, **callbacks: Any) -> None:
        self.fuse.passes(lambda: self.inner.put(name, content, **callbacks))

    def delete(self, name: str) -> None:
        self.fuse.passes(lambda: self.inner.delete(name))

    def discard(self) -> None:
        self.fuse.passes(self.inner.discard)

    def folder(self, name: str) -> MortalStore:
        return MortalStore(self.inner.folder(name), self.fuse)


OLD, NEW, OTHER = Sharded(1), Sharded(2), Sharded(1, "iter_0")


def sweep_after_a_killed_replacement(store: MortalStore) -> None:
    """The replacement ended when `.metadata` was written; what kills the sweep is counted from there."""
    with pytest.raises(Killed):
        NEW.save(MortalStore(store.inner, Fuse(4, is_after=False)))
    sweep(store, older_than_s=-60)


@dataclass(frozen=True)
class Scenario:
    """What was saved before, what is done, and what a reader may find of it: steps at the name."""

    before: tuple[Sharded, ...]
    act: Callable[[Any], object]
    may_find: tuple[tuple[int, ...], ...]


SCENARIOS = {
    "first save": Scenario((), NEW.save, ((), (2,))),
    "replacement": Scenario((OLD,), NEW.save, ((1,), (2,))),
    "removal": Scenario((OLD,), lambda store: remove(store, OLD.manifest), ((1,), ())),
    "removal beside others": Scenario(
        (OLD,), lambda store: remove(store, OLD.manifest, beside_others=True), ((1,), ())
    ),
    "pruning": Scenario((OTHER, NEW), lambda store: prune(store, KeepLast(1)), ((1, 2), (2,))),
    "sweep of a replacement": Scenario((OLD,), sweep_after_a_killed_replacement, ((2,),)),
}
SAVES = {save.save_id: save for save in (OLD, NEW, OTHER)}


def deaths(scenario: Scenario, folder: Path, *, is_after: bool) -> Iterator[NestingStore]:
    """The folder after a death at the first change, at the second, and so on, until nobody dies."""
    number = 0
    while True:
        store = nesting(open_store(folder / str(number)))
        for save in scenario.before:
            save.save(store)
        fuse = Fuse(number, is_after)
        try:
            scenario.act(MortalStore(store, fuse))
        except Killed:
            yield store
            number += 1
        else:
            break
    assert number >= 2, "it made changes"


def files(store: NestingStore) -> set[str]:
    inside = ({f"{name}/{file}" for file in store.folder(name).entries()} for name in store.folders())
    return {*store.entries(), *store.folders(), *(file for each in inside for file in each)}


def files_of(saves: Iterable[Sharded]) -> set[str]:
    return {
        file
        for save in saves
        for file in (
            *(save.name, f"{save.name}.manifest.json", f"{save.name}/.metadata"),
            *(f"{save.name}/{name}" for name in save.data),
        )
    }


def found(store: NestingStore) -> Collection[Sharded]:
    saves = [SAVES[manifest.save_id] for manifest in committed(store)]
    for save in saves:
        assert save.is_what_dcp_reads(store)
        verify(f"{store.url}/{save.name}")
    return saves


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_stopped_at_each_change_readers_see_the_old_or_the_new(
    tmp_path: Path, name: str, is_after: bool
) -> None:
    scenario = SCENARIOS[name]
    seen: list[tuple[int, ...]] = []
    for store in deaths(scenario, tmp_path, is_after=is_after):
        saves = found(store)
        seen.append(tuple(save.step for save in saves))
        assert {other.kind for other in inspect_folder(store).others} <= {"unfinished"}
        told = sweep(store, older_than_s=-60, dry_run=True)
        assert sweep(store, older_than_s=-60) == told
        assert found(store) == saves
        assert files(store) == files_of(saves)
        assert inspect_folder(store).others == ()

    assert set(seen) <= set(scenario.may_find)


@pytest.mark.parametrize("name", ["first save", "replacement", "removal"])
def test_stopped_at_each_change_a_next_save_takes_the_place(tmp_path: Path, name: str) -> None:
    for store in deaths(SCENARIOS[name], tmp_path, is_after=False):
        further = Sharded(3)
        further.save(store)

        assert [info.save_id for info in list_checkpoints(store)] == [further.save_id]
        sweep(store, older_than_s=-60)
        assert files(store) == files_of([further])


# ---- sweep and the rest of the folder ----


@pytest.fixture
def store(tmp_path: Path) -> NestingStore:
    return nesting(open_store(tmp_path))


def put(store: NestingStore, contents: Mapping[str, bytes]) -> None:
    for name, content in contents.items():
        folder, _, file = name.rpartition("/")
        (store.folder(folder) if folder else store).put(file, Content.of(content))


def test_a_sweep_spares_what_is_young(store: NestingStore) -> None:
    Sharded(1).put_data(store)

    assert sweep(store) == []
    assert len(sweep(store, older_than_s=-60)) == 2
    assert files(store) == set()


def test_a_sweep_spares_what_plain_dcp_or_a_person_wrote(store: NestingStore) -> None:
    plain = {"plain/.metadata": b"names __0_0.distcp", "plain/__0_0.distcp": b"x", "logs/run.log": b"x"}
    copy = Sharded(1, "copy")
    copy.put_data(store)
    put(store, {**plain, "copy/.metadata": copy.metadata})
    before = files(store)

    assert sweep(store, older_than_s=-60) == []
    assert files(store) == before


def test_a_sweep_spares_the_data_of_a_damaged_checkpoint_and_of_one_nobody_understands(
    store: NestingStore,
) -> None:
    for name in ("cut", "garbled"):
        Sharded(1, name).save(store)
        store.folder(name).delete(".metadata")
    put(store, {"garbled.manifest.json": b"{"})

    assert sweep(store, older_than_s=-60) == []


def test_a_sweep_removes_temporary_files_in_folders_and_nothing_beside_them(store: NestingStore) -> None:
    Sharded(1).save(store)
    put(store, {f"iter_1/.asynchooks-{'0' * 32}.tmp": b"part", "iter_1/notes.txt": b"mine"})

    assert sweep(store, older_than_s=-60) == [f"iter_1/.asynchooks-{'0' * 32}.tmp"]
    assert "iter_1/notes.txt" in files(store)


def test_no_hostile_next_manifest_leads_a_sweep_to_somebodys_file(store: NestingStore) -> None:
    save = Sharded(1)
    listed = tuple(replace(file, name="notes.txt") for file in save.manifest.files[:1])
    hostile = replace(save.manifest, files=(*listed, save.manifest.metadata))
    put(store, {"iter_1/notes.txt": b"mine", "iter_1.manifest.next.json": hostile.to_json()})

    sweep(store, older_than_s=-60)
    assert files(store) == {"iter_1", "iter_1/notes.txt"}


def test_a_file_that_takes_its_name_from_a_hostile_next_manifest_stays(store: NestingStore) -> None:
    hostile = replace(Sharded(1).manifest, name="iter_1.pth")
    put(store, {"iter_1.pth": b"mine", "iter_1.pth.manifest.next.json": hostile.to_json()})

    sweep(store, older_than_s=-60)
    assert "iter_1.pth" in files(store)
