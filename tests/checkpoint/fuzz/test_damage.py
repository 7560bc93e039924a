"""Damaged and hostile files, through every reader: an error of the package or what was saved, and nothing else.

Never code, never a wrong tensor, never a path outside the folder, and never more time or memory than it is worth.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from asynchooks.checkpoint import (
    CheckpointInfo,
    list_checkpoints,
    read_pointer,
    restore,
    restore_latest,
    sweep,
)
from asynchooks.checkpoint._manifest import next_manifest_name
from asynchooks.errors import AsyncHooksError

from .conftest import (
    FUZZ,
    is_saved,
    manifest_of,
    read_every_way,
    state,
)


def test_the_undamaged_folder_is_read_every_way(folder: Path) -> None:
    assert len([answer for answer in read_every_way(folder) if isinstance(answer, dict)]) == 7


# ---- damage ----

FILES = ["iter_2.pth", "iter_2.pth.manifest.json", "last_checkpoint"]


@FUZZ
@given(file=st.sampled_from(FILES), kind=st.sampled_from(["cut", "flip", "zero", "insert"]), data=st.data())
def test_no_damage_to_a_file_gives_a_wrong_tensor(
    good: Path, tmp_path: Path, file: str, kind: str, data: st.DataObject
) -> None:
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(good, folder)
    content = bytearray((folder / file).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if kind == "cut":
        del content[place:]
    elif kind == "flip":
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "zero":
        content[place : place + 64] = bytes(len(content[place : place + 64]))
    else:
        content[place:place] = b"\xff" * data.draw(st.integers(1, 9))
    assume(bytes(content) != (folder / file).read_bytes())  # zeros over zeros
    (folder / file).write_bytes(content)

    read_every_way(folder)
    newest = restore_latest(folder)

    assert newest is not None
    assert is_saved(newest[1])
    assert file != "iter_2.pth" or newest[0].step == 1


@FUZZ
@given(kind=st.sampled_from(["cut", "flip"]), data=st.data())
def test_no_damage_to_a_file_without_a_manifest_gives_a_wrong_tensor(
    tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    """The checksums that torch wrote into it are compared."""
    path = tmp_path / "plain.pth"
    torch.save(state(3), path)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if kind == "cut":
        del content[place:]
    else:
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)

    try:
        loaded = restore(path)
    except AsyncHooksError:
        return
    assert is_saved(loaded)


def test_each_truncation_of_a_manifest_hides_that_checkpoint_alone(folder: Path) -> None:
    path = folder / "iter_2.pth.manifest.json"
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])

        assert [info.step for info in list_checkpoints(folder)] == [1]


@pytest.mark.parametrize("step", [1, 2])
def test_damage_beside_a_replacement_is_never_taken_for_either(folder: Path, step: int) -> None:
    """The next manifest describes this very data, which has lost a bit."""
    described = json.loads((folder / "iter_2.pth.manifest.json").read_bytes())
    (folder / next_manifest_name("iter_2.pth")).write_text(json.dumps({**described, "step": 7}))
    content = bytearray((folder / f"iter_{step}.pth").read_bytes())
    content[-300] ^= 1
    (folder / "iter_2.pth").write_bytes(content)

    read_every_way(folder)
    newest = restore_latest(folder)

    assert newest is not None
    assert newest[0].step == 1


# ---- manifests and pointers that were made to do harm ----


WRONG_METRICS: list[Any] = [{"a": "x"}, {"a": None}, [], 3]
WRONG_FILES: list[Any] = [[], {}, [{}], [[]], None, [{"name": "../x", "size": 3, "chunks": []}]]
NUMBERS = [
    -1,
    2**31,
    2**63,
    2**64,
    10**30,
    1.5,
    float("nan"),
    float("inf"),
    float("-inf"),
    True,
    "7",
    None,
    [],
    {},
]
TEXTS = [
    "../x",
    "/etc/passwd",
    "a/../../b",
    "..",
    ".",
    "",
    "\0",
    "a\x1b[2Jb",
    "\ud800",
    "x" * 5000,
    7,
    None,
    ["a"],
]


@pytest.mark.parametrize(
    "change",
    [
        *({key: value} for key in ("step", "epoch", "created_ns", "version") for value in NUMBERS),
        *({key: value} for key in ("name", "save_id", "run_id", "group", "saved_as") for value in TEXTS),
        *({"metrics": metrics} for metrics in WRONG_METRICS),
        *({"files": files} for files in WRONG_FILES),
    ],
    ids=repr,
)
def test_no_value_in_a_manifest_leads_astray(folder: Path, change: dict[str, Any]) -> None:
    path = folder / "iter_2.pth.manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}))

    answers = read_every_way(folder)

    assert all(answer.created for answer in answers if isinstance(answer, CheckpointInfo))


@pytest.mark.parametrize(
    "sizes",
    [[2**63], [-5, 10], [2**62, 2**62, 2**62], [0] * 1000, [1.5], ["3"], [True]],
    ids=lambda sizes: repr(sizes)[:20],
)
@pytest.mark.usefixtures("_bounded")
def test_no_size_in_a_manifest_is_believed(folder: Path, sizes: list[Any]) -> None:
    path = folder / "iter_2.pth.manifest.json"
    document = json.loads(path.read_bytes())
    for total in (
        sum(size for size in sizes if isinstance(size, int)),
        (folder / "iter_2.pth").stat().st_size,
    ):
        file = {**document["files"][0], "size": total, "chunks": [[size, "0" * 32] for size in sizes]}
        path.write_text(json.dumps({**document, "files": [file]}))

        read_every_way(folder)

        assert [info.step for info in list_checkpoints(folder)] == [1]


@pytest.mark.parametrize(
    "text",
    ["[" * 200_000, '{"a":' * 100_000, "9" * 10_000, '{"format": "asynchooks.checkpoint"}', "null", "[]"],
    ids=len,
)
@pytest.mark.usefixtures("_bounded")
def test_no_json_breaks_the_reader(folder: Path, text: str) -> None:
    for name in ("iter_2.pth.manifest.json", next_manifest_name("iter_2.pth")):
        (folder / name).write_text(text)

        read_every_way(folder)


@pytest.mark.parametrize("name", ["iter_2.pth.manifest.json", "last_checkpoint"])
@pytest.mark.usefixtures("_bounded")
def test_what_is_much_too_long_is_not_read(folder: Path, name: str) -> None:
    with (folder / name).open("wb") as file:
        file.truncate(10**12)  # it takes no room on the disk

    read_every_way(folder)

    assert read_pointer(folder) is None or name != "last_checkpoint"


@pytest.mark.parametrize(
    "text", ["../../etc/passwd", "/etc/passwd", "..", "", "\0", "s3://bucket/x/../..", "a\\..\\b", "\x1b[2J"]
)
def test_a_pointer_stays_in_its_folder(folder: Path, text: str) -> None:
    (folder / "last_checkpoint").write_text(text)

    read_every_way(folder)


def test_a_sweep_deletes_nothing_that_a_hostile_manifest_names(folder: Path) -> None:
    outside = folder.parent / "precious.pth"
    outside.write_bytes(b"precious")
    described = replace(manifest_of("iter_1.pth", b"precious"), name="../precious.pth")
    (folder / "x.pth.manifest.next.json").write_bytes(described.to_json())
    (folder / "x.pth").write_bytes(b"precious")

    sweep(folder, older_than_s=-5)

    assert outside.read_bytes() == b"precious"
    assert (folder / "iter_1.pth").exists()
