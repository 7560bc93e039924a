"""The manifest comes back as it was written, and refuses what is not one."""

import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynchooks.checkpoint._manifest import Chunk, Manifest, check_name
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
