"""Sharded checkpoints in the catalog: committed whole, replaced at one instant, removed, never mixed with files."""

import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from asynchooks.checkpoint import (
    Checkpointer,
    Content,
    KeepLast,
    Store,
    capture,
    inspect_folder,
    list_checkpoints,
    open_store,
    prune,
    sweep,
    verify,
)
from asynchooks.checkpoint._catalog import committed, find_committed
from asynchooks.checkpoint._commit import (
    announce,
    check_layout,
    clear_replaced,
    delete_data,
    publish,
    publish_sharded,
    put_metadata,
    remove,
    settle,
    withdraw,
)
from asynchooks.checkpoint._storage import nesting
from asynchooks.errors import CorruptCheckpointError, ForeignCheckpointError, StorageError, StorageFullError
from asynchooks.testing import Call, Fault, FaultyStore, S3Server

from .dcp_folder import Sharded


@pytest.fixture(params=["local", "memory", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(tmp_path / "run")
    if request.param == "memory":
        return open_store(f"memory://{uuid.uuid4().hex}/run")
    server: S3Server = request.getfixturevalue("s3_server")
    return open_store(f"{server.make_bucket('sharded')}/{uuid.uuid4().hex}", server.storage_options)


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return open_store(tmp_path / "run")


def files(store: Store) -> set[str]:
    """All files, those in folders too."""
    inside = {
        f"{name}/{file}"
        for name in nesting(store).folders()
        for file in (nesting(store).folder(name).entries() or [""])
    }
    return {*store.entries(), *inside}


def files_of(*saves: Sharded) -> set[str]:
    return {
        *(f"{save.name}.manifest.json" for save in saves),
        *(f"{save.name}/{name}" for save in saves for name in (*save.data, ".metadata")),
    }


def test_a_sharded_checkpoint_is_listed_and_verifies(store: Store) -> None:
    saves = [Sharded(1, "iter_1"), Sharded(2, "iter_2", world_size=3)]
    for save in saves:
        save.save(store)

    (first, second) = list_checkpoints(store)
    assert committed(store) == [save.manifest for save in saves]
    assert (first.layout, first.nfiles, first.world_size) == ("sharded", 3, 2)
    assert second.nbytes == 3 * 1000 + len(saves[1].metadata)
    assert files(store) == files_of(*saves)


def test_each_step_of_a_first_save_shows_none_or_all(store: Store) -> None:
    save = Sharded(1)
    seen: list[bool] = []
    steps: list[Callable[[], Any]] = [
        lambda: save.put_data(store),
        lambda: announce(store, save.manifest),
        lambda: put_metadata(store, save.manifest, save.metadata),
        lambda: publish(store, save.manifest),
    ]
    for step in steps:
        step()
        seen.append(find_committed(store, "iter_1") == save.manifest)

    assert seen == [False, False, False, True]


def test_each_step_of_a_replacement_shows_the_old_or_the_new(store: Store) -> None:
    old, new = Sharded(1), Sharded(2)
    old.save(store)
    seen: list[int] = []
    steps: list[Callable[[], Any]] = [
        lambda: new.put_data(store),
        lambda: announce(store, new.manifest),
        lambda: put_metadata(store, new.manifest, new.metadata),
        lambda: publish(store, new.manifest),
        lambda: clear_replaced(store, new.manifest, old.manifest),
    ]
    for step in steps:
        step()
        (manifest,) = committed(store)
        assert {1: old, 2: new}[manifest.step].is_what_dcp_reads(store)
        seen.append(manifest.step)

    assert seen == [1, 1, 2, 2, 2]
    assert files(store) == files_of(new)


def test_the_caller_hears_of_the_commit_though_the_replaced_data_cannot_be_deleted(local: Store) -> None:
    old, new = Sharded(1, "iter_1"), Sharded(2, "iter_1")
    replaced = old.save(local)
    new.put_data(local)
    store = FaultyStore(local, [Fault(lambda: StorageError("refused"), "delete", "iter_1/*")])
    heard: list[list[int]] = []

    with pytest.raises(StorageError, match="refused"):
        publish_sharded(
            store,
            new.manifest,
            new.metadata,
            replaced,
            on_commit=lambda: heard.append([manifest.step for manifest in committed(local)]),
        )
    assert heard == [[2]]


def test_what_is_removed_leaves_nothing(store: Store) -> None:
    saves = [Sharded(1, "iter_1"), Sharded(2, "iter_2")]
    for save in saves:
        save.save(store)

    assert remove(store, saves[0].manifest)
    assert remove(store, saves[1].manifest, beside_others=True)
    assert files(store) == set()


@pytest.mark.parametrize("name", [".metadata", "__1_0"])
@pytest.mark.parametrize("harm", ["gone", "cut"])
def test_a_checkpoint_with_a_file_missing_or_cut_is_not_committed(
    local: Store, caplog: pytest.LogCaptureFixture, name: str, harm: str
) -> None:
    save = Sharded(1)
    save.save(local)
    folder = nesting(local).folder("iter_1")
    (file,) = [each for each in folder.entries() if each.startswith(name)]
    folder.delete(file)
    if harm == "cut":
        folder.put(file, Content.of(b"short"))

    assert committed(local) == []
    assert "iter_1 is not a committed checkpoint" in caplog.text
    assert file in caplog.text


def test_other_files_in_the_folder_change_nothing(local: Store) -> None:
    save = Sharded(1)
    save.save(local)
    nesting(local).folder("iter_1").put("notes.txt", Content.of(b"mine"))

    assert committed(local) == [save.manifest]
    remove(local, save.manifest)
    assert files(local) == {"iter_1/notes.txt"}


def test_what_is_known_costs_two_listings(local: Store) -> None:
    for step in range(5):
        Sharded(step, f"iter_{step}").save(local)
    watched, known = FaultyStore(local), dict[str, Any]()
    assert len(committed(watched, known=known)) == 5
    Sharded(9, "iter_9").save(local)
    watched.calls.clear()

    assert len(committed(watched, known=known)) == 6
    assert watched.calls == [
        *(Call("entries", ""), Call("folders", "")),
        *(Call("read", "iter_9.manifest.json"), Call("entries", "iter_9/")),
    ]


def test_a_folder_that_is_gone_is_no_checkpoint_although_it_was_known(local: Store) -> None:
    save, known = Sharded(1), dict[str, Any]()
    save.save(local)
    committed(local, known=known)
    for name in nesting(local).folder("iter_1").entries():
        nesting(local).folder("iter_1").delete(name)
    nesting(local).folder("iter_1").discard()

    assert committed(local, known=known) == []
    assert known == {}


def test_folders_are_not_listed_where_there_are_files_alone(local: Store) -> None:
    Checkpointer(local).save_sync(capture({"w": torch.ones(2)}), name="a.pth", step=1)
    watched = FaultyStore(local)

    committed(watched)
    assert Call("folders", "") not in watched.calls


def test_a_failed_save_that_is_withdrawn_leaves_the_old_one(local: Store) -> None:
    old, new = Sharded(1), Sharded(2)
    old.save(local)
    faulty = FaultyStore(local, [Fault(lambda: StorageFullError("full"), "put", "iter_1/.metadata")])
    new.put_data(faulty)

    with pytest.raises(StorageFullError):
        publish_sharded(faulty, new.manifest, new.metadata, old.manifest)
    assert withdraw(faulty, new.manifest)
    delete_data(faulty, new.manifest)
    assert committed(local) == [old.manifest]
    assert files(local) == files_of(old)


def test_a_save_whose_metadata_is_there_is_not_withdrawn(local: Store) -> None:
    old, new = Sharded(1), Sharded(2)
    old.save(local)
    new.put_data(local)
    announce(local, new.manifest)
    put_metadata(local, new.manifest, new.metadata)

    assert not withdraw(local, new.manifest)
    assert committed(local) == [new.manifest]


def test_a_save_after_a_killed_replacement_shows_one_of_the_three_at_every_step(local: Store) -> None:
    old, killed, new = Sharded(1), Sharded(2), Sharded(3)
    old.save(local)
    killed.put_data(local)
    announce(local, killed.manifest)
    put_metadata(local, killed.manifest, killed.metadata)

    replaced = settle(local, "iter_1")
    assert replaced == killed.manifest
    new.put_data(local)
    announce(local, new.manifest)
    assert committed(local) == [killed.manifest]
    put_metadata(local, new.manifest, new.metadata)
    assert committed(local) == [new.manifest]


def test_a_removal_spares_what_another_process_saved_meanwhile(local: Store) -> None:
    old, new = Sharded(1), Sharded(2)
    old.save(local)
    new.save(local)

    assert not remove(local, old.manifest, beside_others=True)
    assert committed(local) == [new.manifest]
    assert files(local) == files_of(new)


def test_many_files_are_deleted_together_and_told_of_one_by_one(local: Store) -> None:
    save = Sharded(1, world_size=40)
    save.save(local)
    told: list[int] = []

    remove(local, save.manifest, progress=told.append)
    assert sum(told) == 40
    assert files(local) == set()


def test_a_single_file_does_not_replace_a_sharded_checkpoint(store: Store) -> None:
    save = Sharded(1)
    save.save(store)

    with pytest.raises(ForeignCheckpointError, match=r"sharded checkpoint \(step 1\)"):
        Checkpointer(store).save_sync(capture({"w": torch.ones(2)}), name="iter_1", step=2)
    assert committed(store) == [save.manifest]
    assert "iter_1.manifest.next.json" not in store.entries()


def test_a_sharded_checkpoint_does_not_replace_a_file(store: Store) -> None:
    Checkpointer(store).save_sync(capture({"w": torch.ones(2)}), name="iter_1", step=1)

    with pytest.raises(ForeignCheckpointError, match=r"iter_1 is a single-file checkpoint \(step 1\)"):
        check_layout(store, "iter_1", "sharded")
    check_layout(store, "iter_1", "single")
    check_layout(store, "iter_2", "sharded")


def test_a_single_file_does_not_replace_a_folder_of_any_kind(local: Store, tmp_path: Path) -> None:
    nesting(local).folder("iter_1").put("notes.txt", Content.of(b"mine"))

    with pytest.raises(StorageError, match="a folder of that name is there"):
        Checkpointer(local).save_sync(capture({"w": torch.ones(2)}), name="iter_1", step=2)
    assert files(local) - {".asynchooks.owner.json"} == {"iter_1/notes.txt"}


def test_verify_reads_every_file_and_names_the_one_that_differs(local: Store) -> None:
    save = Sharded(1, nbytes=40 * 2**20)
    save.save(local)
    told: list[int] = []

    assert verify(f"{local.url}/iter_1", progress=told.append).layout == "sharded"
    assert sum(told) == save.manifest.nbytes
    name = list(save.data)[1]
    path = Path(local.url) / "iter_1" / name
    with path.open("r+b") as file:
        file.seek(17 * 2**20)
        file.write(b"!")
    with pytest.raises(CorruptCheckpointError, match=rf"iter_1/{name}: chunk 1, bytes 16777216"):
        verify(f"{local.url}/iter_1")


def test_a_pruning_judges_files_and_folders_together(local: Store) -> None:
    saves = Checkpointer(local, run_id="run")
    saves.save_sync(capture({"w": torch.ones(2)}), name="a.pth", step=1)
    saves.release_sync()
    for step in (2, 3):
        replace(Sharded(step, f"iter_{step}"), created_ns=2**62 + step).save(local)

    verdicts = prune(local, KeepLast(1), run_id="run")
    assert [verdict.info.name for verdict in verdicts if verdict.goes] == ["a.pth", "iter_2"]
    assert files(local) - {".asynchooks.owner.json", "iter_3.manifest.json"} == {
        f"iter_3/{name}" for name in nesting(local).folder("iter_3").entries()
    }


def test_a_folder_says_what_is_in_its_folders(local: Store) -> None:
    whole, cut, young = Sharded(1, "whole"), Sharded(2, "cut"), Sharded(3, "young")
    for save in (whole, cut):
        save.save(local)
    nesting(local).folder("cut").delete(next(iter(cut.data)))
    young.put_data(local)
    replaced = Sharded(0, "whole")
    replaced.put_data(local)
    for name in ("whole/notes.txt", "plain/.metadata", "plain/__0_0.distcp", "logs/run.log"):
        folder, _, file = name.partition("/")
        nesting(local).folder(folder).put(file, Content.of(b"x"))
    local.put("last_checkpoint", Content.of(f"{local.url}/whole".encode()))

    contents = inspect_folder(local)
    kinds = {other.name: other.kind for other in contents.others}
    reasons = {other.name: other.reason for other in contents.others}
    assert [info.name for info in contents.checkpoints] == ["whole"]
    assert kinds == {
        "cut.manifest.json": "damaged",
        "cut/": "damaged",
        "plain/": "foreign",
        **{f"whole/{name}": "unfinished" for name in replaced.data},
        "whole/notes.txt": "foreign",
        "young/": "unfinished",
    }
    assert reasons["cut/"] == f"{next(iter(cut.data))} is not there"
    assert "torch.distributed.checkpoint, which can be loaded" in reasons["plain/"]
    assert "cut short before its commit" in reasons["young/"]


def test_a_folder_of_nothing_but_temporary_files_is_told_and_counted(local: Store) -> None:
    for name in ("iter_1", "other_run"):
        nesting(local).folder(name).put(f".asynchooks-{'0' * 32}.tmp", Content.of(b"half"))
    nesting(local).folder("other_run").put("a.pth", Content.of(b"whole"))

    contents = inspect_folder(local)
    assert [(other.name, other.kind, other.nbytes) for other in contents.others] == [
        ("iter_1/", "unfinished", 4)
    ]
    assert contents.nbytes == 4


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_a_folder_that_dcp_itself_wrote_is_foreign_and_stays(local: Store, tmp_path: Path) -> None:
    dcp_save({"w": torch.ones(2)}, checkpoint_id=tmp_path / "run" / "iter_1", no_dist=True)

    (other,) = inspect_folder(local).others
    assert (other.name, other.kind) == ("iter_1/", "foreign")
    assert sweep(local, older_than_s=-60) == []
    assert committed(local) == []
