"""What the readers may answer to a damaged or hostile file, in how much time and memory."""

import resource
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from asynchooks.checkpoint import (
    Checkpointer,
    Content,
    capture,
    find_latest,
    inspect_folder,
    list_checkpoints,
    read_pointer,
    restore,
    restore_latest,
    sweep,
    verify,
)
from asynchooks.checkpoint._content import checksum
from asynchooks.checkpoint._manifest import Manifest
from asynchooks.errors import AsyncHooksError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MOST_SECONDS = 10.0
MOST_MIB = 200


# ---- what the readers may answer ----


def state(step: int) -> dict[str, Any]:
    weight = torch.arange(300.0) + step
    return {"state_dict": {"w": weight, "tied": weight[3:9]}, "meta": {"iter": step, "text": ["a", None]}}


def is_saved(loaded: Any) -> bool:
    """Whether this is exactly what one of the steps saved."""
    wanted = state(loaded["meta"]["iter"])
    return (
        loaded["meta"] == wanted["meta"]
        and loaded["state_dict"].keys() == wanted["state_dict"].keys()
        and all(
            torch.equal(tensor, wanted["state_dict"][name]) for name, tensor in loaded["state_dict"].items()
        )
    )


def readers(folder: Path) -> list[Callable[[], Any]]:
    """Every way to read a folder, and each file in it."""

    def latest() -> Any:
        found = restore_latest(folder)
        return None if found is None else found[1]

    def pointed() -> None:
        url = read_pointer(folder)
        assert url is None or Path(url).parent == folder

    ways: list[Callable[[], Any]] = [
        latest,
        pointed,
        partial(find_latest, folder),
        partial(list_checkpoints, folder),
        partial(inspect_folder, folder),
        partial(sweep, folder, older_than_s=-5),
    ]
    for path in (folder / "iter_1.pth", folder / "iter_2.pth"):
        ways += [
            partial(verify, path),
            partial(restore, path),
            partial(restore, path, into=state(0)),
            partial(restore, path, keys=["state_dict", "meta"]),
        ]
    return ways


def read_every_way(folder: Path) -> list[Any]:
    """What the readers answer; errors of the package are answers, anything else fails the test."""
    answers: list[Any] = []
    for reader in readers(folder):
        try:
            answer = reader()
        except AsyncHooksError as error:
            answers.append(str(error))
            continue
        assert not isinstance(answer, dict) or is_saved(answer)
        answers.append(answer)
    return answers


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    saves = Checkpointer(folder)
    for step in (1, 2):
        saves.save_sync(capture(state(step)), name=f"iter_{step}.pth", step=step, pointer="last")
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "outer" / "run"))


@pytest.fixture
def _bounded() -> Iterator[None]:
    """The test takes little time, and memory for what a small file is worth."""
    start_s, start_kib = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - start_s < MOST_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start_kib < MOST_MIB * 1024


def manifest_of(name: str, content: bytes) -> Manifest:
    chunks = checksum(Content.of(content), [len(content)] if content else [])
    return Manifest(
        name=name,
        step=9,
        epoch=None,
        metrics={},
        chunks=chunks,
        tensors="",
        created_ns=2**62,
        run_id="r",
        save_id="s",
        group="last",
    )
