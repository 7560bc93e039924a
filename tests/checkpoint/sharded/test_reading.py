"""What is read of a sharded checkpoint is compared with its manifest, on every store."""

import io
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from asynchooks.checkpoint import (
    Content,
    ShardReader,
    find_latest,
    list_checkpoints,
    open_store,
    restore,
    restore_latest,
    verify,
)
from asynchooks.checkpoint._content import checksum
from asynchooks.checkpoint._files import File, chunk_lengths
from asynchooks.checkpoint._manifest import Manifest, manifest_name
from asynchooks.checkpoint._storage import nesting
from asynchooks.errors import CorruptCheckpointError, ForeignCheckpointError
from asynchooks.testing import S3Server

CHUNK_BYTES = 4096


def state(step: int) -> dict[str, Any]:
    wide = torch.arange(6000.0).reshape(60, 100) + step
    return {
        "state_dict": {
            "w": wide,
            "t": wide[:7, :3].t().contiguous(),
            "none": torch.empty(0, 4),
            "s": torch.tensor(5),
        },
        "meta": {"iter": step, "text": ["a", None]},
    }


def is_saved(loaded: Any) -> bool:
    wanted = state(loaded["meta"]["iter"])
    return loaded["meta"] == wanted["meta"] and all(
        torch.equal(tensor, wanted["state_dict"][name]) for name, tensor in loaded["state_dict"].items()
    )


def save_plain(folder: Path, step: int) -> None:
    with pytest.warns(UserWarning, match="single process"):
        dcp_save(state(step), checkpoint_id=str(folder / f"iter_{step}"))


def commit(url: str | Path, step: int, contents: dict[str, bytes], options: Any = None) -> None:
    """Put a sharded checkpoint's files and its manifest."""
    store = open_store(url, options)
    name = f"iter_{step}"
    files = []
    for file, content in contents.items():
        nesting(store).folder(name).put(file, Content.of(content))
        chunks = checksum(Content.of(content), chunk_lengths(len(content), CHUNK_BYTES))
        files.append(File.of(file, chunks, CHUNK_BYTES))
    manifest = Manifest(
        name=name,
        step=step,
        epoch=None,
        metrics={},
        chunks=(),
        tensors="",
        created_ns=step,
        run_id="r",
        save_id=f"{step:032x}",
        group="last",
    )
    text = replace(manifest, files=tuple(files)).to_json()
    store.put(manifest_name(name), Content.of(text))


def contents_of(folder: Path, step: int) -> dict[str, bytes]:
    save_plain(folder, step)
    return {path.name: path.read_bytes() for path in (folder / f"iter_{step}").iterdir()}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for step in (1, 2):
        commit(tmp_path / "run", step, contents_of(tmp_path / "plain", step))
    return tmp_path / "run"


@pytest.fixture(params=["local", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Any]:
    if request.param == "local":
        return str(tmp_path / "run"), None
    if request.param == "memory":
        return f"memory://{tmp_path.name}/run", None
    server: S3Server = request.getfixturevalue("s3_server")
    return f"{server.make_bucket('sharded')}/{tmp_path.name}", server.storage_options


def test_every_store_gives_what_was_saved(place: tuple[str, Any], tmp_path: Path) -> None:
    url, options = place
    commit(url, 1, contents_of(tmp_path / "plain", 1), options)
    into = {key: dict(value) for key, value in state(0).items()}

    restore(f"{url}/iter_1", into=into, storage_options=options)

    assert is_saved(into)
    assert is_saved(restore(f"{url}/iter_1", storage_options=options))
    assert verify(f"{url}/iter_1", storage_options=options).layout == "sharded"


def test_plain_dcp_loads_with_the_reader(place: tuple[str, Any], tmp_path: Path) -> None:
    url, options = place
    commit(url, 1, contents_of(tmp_path / "plain", 1), options)
    into = {key: dict(value) for key, value in state(0).items()}

    with pytest.warns(UserWarning, match="single process"):
        dcp_load(into, storage_reader=ShardReader(f"{url}/iter_1", storage_options=options))
    assert is_saved(into)
    assert into["meta"]["iter"] == 1


def test_a_verified_checkpoint_is_read_without_a_warning(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        restore(run / "iter_1")

    assert not caplog.records


def test_the_newest_sharded_checkpoint_that_is_whole_is_taken(run: Path) -> None:
    (data,) = (run / "iter_2").glob("*.distcp")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    found, latest = restore_latest(run), find_latest(run)

    assert [info.step for info in list_checkpoints(run)] == [1, 2]
    assert found is not None
    assert latest is not None
    assert found[0].step == latest.step == 1
    assert is_saved(found[1])


def test_damage_is_told_as_damage_wherever_it_is(run: Path) -> None:
    (data,) = (run / "iter_2").glob("*.distcp")
    whole = data.read_bytes()
    archives = [
        match.start() for match in re.finditer(rb"PK\x03\x04.{26}archive/data\.pkl", whole, re.DOTALL)
    ]
    assert len(archives) > 3

    for at in (*archives, *(start + 200 for start in archives), len(whole) // 2, len(whole) - 1):
        data.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(CorruptCheckpointError, match=r"__0_0\.distcp"):
            restore(run / "iter_2")


def test_damage_outside_of_what_is_wanted_does_not_matter(run: Path) -> None:
    (data,) = (run / "iter_2").glob("*.distcp")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)

    assert restore(run / "iter_2", keys=["meta"])["meta"]["iter"] == 2
    with pytest.raises(CorruptCheckpointError, match=r"distcp: chunk \d+, .*differs from what was saved"):
        verify(run / "iter_2")


class Unsafe:
    """A class that no checkpoint should need."""


def test_an_object_of_another_class_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="single process"):
        dcp_save({"o": Unsafe()}, checkpoint_id=str(tmp_path / "iter_1"))

    with pytest.raises(ForeignCheckpointError, match="would run code"):
        restore(tmp_path / "iter_1")
    assert isinstance(restore(tmp_path / "iter_1", weights_only=False)["o"], Unsafe)


def test_a_planner_is_handed_what_it_can_load(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="single process"):
        dcp_save({"o": [1, "a", {2}]}, checkpoint_id=str(tmp_path / "iter_1"))
        into: dict[str, Any] = {"o": io.BytesIO()}
        dcp_load(into, storage_reader=ShardReader(tmp_path / "iter_1"))

    assert into == {"o": [1, "a", {2}]}
