"""The manifest comes back as it was written, and refuses what is not one."""

import json
import string
import uuid
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynchooks.checkpoint._files import (
    MAX_FILES,
    METADATA,
    Chunk,
    File,
    chunk_bytes_for,
    chunk_lengths,
    save_id_of,
)
from asynchooks.checkpoint._manifest import MAX_MANIFEST_BYTES, Manifest, check_name
from asynchooks.errors import CorruptCheckpointError, ForeignCheckpointError, UnsafePathError

texts = st.text(max_size=20)
manifests = st.builds(
    Manifest,
    name=st.text(string.ascii_letters + string.digits + "_-. é", min_size=1, max_size=30).map(
        lambda name: "x" + name
    ),
    step=st.integers(0, 2**60),
    epoch=st.none() | st.integers(0, 10**6),
    metrics=st.dictionaries(texts, st.floats(allow_nan=False)),
    chunks=st.lists(st.builds(Chunk, st.integers(0, 2**40), st.text("0123456789abcdef", max_size=32))).map(
        tuple
    ),
    tensors=texts,
    created_ns=st.integers(0, 2**62),
    run_id=texts,
    save_id=texts,
    group=texts,
    saved_as=st.sampled_from([None, "last", "best"]),
    versions=st.dictionaries(texts, texts),
)
EXAMPLE = Manifest("a.pth", 1, None, {"acc": float("nan")}, (Chunk(3, "00"),), "", 5, "run", "save", "last")


@given(manifests)
def test_a_manifest_comes_back_as_it_was_written(manifest: Manifest) -> None:
    text = manifest.to_json()

    assert Manifest.from_json(text, where="x") == manifest
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not standard JSON"))


def test_a_metric_may_be_nan() -> None:
    again = Manifest.from_json(EXAMPLE.to_json(), where="x")

    assert again.metrics["acc"] != again.metrics["acc"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"format": "other"}, ForeignCheckpointError),
        ({"version": 99}, ForeignCheckpointError),
        ({"version": "x"}, ForeignCheckpointError),
        ({"step": None}, CorruptCheckpointError),
        ({"files": []}, CorruptCheckpointError),
        ({"metrics": {"a": "b"}}, CorruptCheckpointError),
        ({"saved_as": "first"}, CorruptCheckpointError),
        ({"name": "../a.pth"}, CorruptCheckpointError),
        ({"files": [{"name": "a.pth", "size": 4, "chunks": [[3, "00"]]}]}, CorruptCheckpointError),
    ],
)
def test_what_is_no_manifest_is_refused(change: dict[str, Any], error: type[Exception]) -> None:
    document = json.loads(EXAMPLE.to_json()) | change

    with pytest.raises(error):
        Manifest.from_json(json.dumps(document).encode(), where="x")


@given(st.binary(max_size=200))
def test_no_bytes_at_all_make_it_fail_otherwise(text: bytes) -> None:
    with pytest.raises((CorruptCheckpointError, ForeignCheckpointError)):
        Manifest.from_json(text, where="x")


def test_what_later_versions_add_is_ignored() -> None:
    document = json.loads(EXAMPLE.to_json()) | {"added": {"later": 1}}

    assert Manifest.from_json(json.dumps(document).encode(), where="x").save_id == "save"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "../a",
        "/a",
        "a\\b",
        "a\0b",
        "a\nb",
        ".hidden",
        "a.manifest.json",
        "last_checkpoint",
        "x" * 201,
    ],
)
def test_names_that_leave_the_folder_or_collide_are_refused(name: str) -> None:
    with pytest.raises(UnsafePathError):
        check_name(name)


def test_a_name_is_a_string() -> None:
    with pytest.raises(TypeError, match="epoch_5"):
        check_name(5)  # type: ignore[arg-type]


# ---- sharded: version 2 ----

file_names = st.text(string.ascii_letters + string.digits + "_-. é", max_size=30).map(lambda name: "_" + name)


@st.composite
def files(draw: st.DrawFn, name: str) -> File:
    nbytes = draw(st.integers(0, 2**50))
    chunk_bytes = draw(st.integers(max(1, nbytes // 5), 2**51))
    nchunks = -(-nbytes // chunk_bytes)
    return File(
        name, nbytes, chunk_bytes, draw(st.text("0123456789abcdef", min_size=32, max_size=32)) * nchunks
    )


@st.composite
def sharded_manifests(draw: st.DrawFn) -> Manifest:
    names = [METADATA, *draw(st.sets(file_names, max_size=5))]
    listed = tuple(draw(files(name)) for name in names)
    return replace(
        draw(manifests), chunks=(), files=listed, world_size=draw(st.integers(1, 2**20)), name="iter_1"
    )


def file_of(name: str, nbytes: int, chunk_bytes: int) -> File:
    return File(name, nbytes, chunk_bytes, "0123456789abcdef" * 2 * -(-nbytes // chunk_bytes))


SHARDED = replace(EXAMPLE, name="iter_1", chunks=(), files=(file_of(METADATA, 5, 3), file_of("__0_0", 0, 1)))


@given(sharded_manifests())
def test_a_sharded_manifest_comes_back_as_it_was_written(manifest: Manifest) -> None:
    again = Manifest.from_json(manifest.to_json(), where="x")

    assert again == manifest
    assert again.metadata.name == METADATA
    assert again.nbytes == sum(file.nbytes for file in manifest.files)
    for file in again.files:
        assert File.of(file.name, file.chunks, file.chunk_bytes) == file


def test_what_it_describes_is_in_the_info() -> None:
    info = replace(SHARDED, world_size=8).info("/run/iter_1")

    assert (info.layout, info.nfiles, info.world_size, info.nbytes) == ("sharded", 2, 8, 5)
    assert (EXAMPLE.info("x").layout, EXAMPLE.info("x").nfiles, EXAMPLE.info("x").world_size) == (
        "single",
        1,
        1,
    )


def test_a_single_file_is_described_as_it_ever_was() -> None:
    assert EXAMPLE.to_json() == (
        b'{\n "format": "asynchooks.checkpoint",\n "version": 1,\n "layout": "torch.save",\n "name": "a.pth",\n'
        b' "step": 1,\n "epoch": null,\n "metrics": {\n  "acc": "nan"\n },\n "files": [\n  {\n   "name": "a.pth",\n'
        b'   "size": 3,\n   "checksum": "xxh3_128",\n   "chunks": [\n    [\n     3,\n     "00"\n    ]\n'
        b"   ]\n  }\n ],\n"
        b' "tensors": "",\n "run_id": "run",\n "save_id": "save",\n "group": "last",\n "saved_as": null,\n'
        b' "created": "1970-01-01T00:00:00.000+00:00",\n "created_ns": 5,\n "versions": {}\n}'
    )


DIGESTS = SHARDED.files[0].digests


@pytest.mark.parametrize(
    "change",
    [
        {"layout": "torch.save"},
        {"world_size": 0},
        {"world_size": None},
        {"files": []},
        {"files": [{"name": "a", "size": 0, "chunk_bytes": 1, "chunks": ""}]},
        {"files": [{"name": METADATA, "size": 5, "chunk_bytes": 3, "chunks": DIGESTS}] * 2},
        {"files": [{"name": METADATA, "size": 5, "chunk_bytes": 5, "chunks": DIGESTS}]},
        {"files": [{"name": METADATA, "size": 5, "chunk_bytes": 3, "chunks": DIGESTS.upper()}]},
        {"files": [{"name": METADATA, "size": -1, "chunk_bytes": 3, "chunks": ""}]},
        {"files": [{"name": METADATA, "size": 5, "chunk_bytes": 0, "chunks": DIGESTS}]},
        {"files": [{"name": METADATA, "size": 5, "chunk_bytes": True, "chunks": DIGESTS}]},
        {"files": [{"name": METADATA, "size": 5, "chunk_bytes": 3}]},
        {"files": {"name": METADATA}},
    ],
)
def test_what_is_no_sharded_manifest_is_refused(change: dict[str, Any]) -> None:
    document = json.loads(SHARDED.to_json()) | change

    with pytest.raises(CorruptCheckpointError):
        Manifest.from_json(json.dumps(document).encode(), where="x")


@pytest.mark.parametrize("name", ["", "..", "a/b", "../a", ".hidden", "a\\b", "a\0", "x" * 256, "\ud800"])
def test_no_file_of_a_sharded_manifest_leaves_its_folder(name: str) -> None:
    document = json.loads(SHARDED.to_json())
    document["files"].append({"name": name, "size": 0, "chunk_bytes": 1, "chunks": ""})

    with pytest.raises(CorruptCheckpointError):
        Manifest.from_json(json.dumps(document).encode(), where="x")


@pytest.mark.parametrize(
    ("nfiles", "total_bytes"),
    [(16_384, 10 * 10**12), (1024, 10 * 10**12), (16_384, 10**16), (1, 10**13), (MAX_FILES, 10**15)],
)
def test_a_sharded_manifest_stays_below_what_readers_take(nfiles: int, total_bytes: int) -> None:
    nbytes = total_bytes // nfiles
    chunk_bytes = chunk_bytes_for(nbytes, nfiles=nfiles)
    data = (file_of(f"__{rank}_0.{'0' * 32}.distcp", nbytes, chunk_bytes) for rank in range(nfiles))
    manifest = replace(SHARDED, files=(SHARDED.metadata, *data), world_size=nfiles)

    text = manifest.to_json()
    assert len(text) < MAX_MANIFEST_BYTES
    assert Manifest.from_json(text, where="x").files == manifest.files


def test_a_manifest_that_no_reader_takes_is_not_written() -> None:
    data = (file_of(f"__{rank}_0.{'0' * 32}.distcp", 2**40, 2**30) for rank in range(1000))

    with pytest.raises(ValueError, match="no reader takes more"):
        replace(SHARDED, files=(SHARDED.metadata, *data)).to_json()


@pytest.mark.parametrize("nbytes", [0, 1, 16 * 2**20, 2**30 + 1])
def test_small_files_have_small_chunks(nbytes: int) -> None:
    chunk_bytes = chunk_bytes_for(nbytes, nfiles=64)

    assert chunk_bytes == 16 * 2**20
    assert sum(chunk_lengths(nbytes, chunk_bytes)) == nbytes


@given(st.integers(0, 99_999), st.integers(0, 9), st.uuids())
def test_a_data_file_names_its_save(rank: int, number: int, save: uuid.UUID) -> None:
    assert save_id_of(f"__{rank}_{number}.{save.hex}.distcp") == save.hex
    assert save_id_of(f"__{rank}_{number}.distcp") is None
