"""From the first commit on, a checkpoint loads at every instant: a second process looks all the time."""

from __future__ import annotations

import random
import signal
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from asynchooks.testing import S3Server

from .conftest import Trainer
from .program import Program, running
from .reference import Reference

pytestmark = pytest.mark.crash

ITERS = 60
SIZE = 150  # a small checkpoint, for many looks


@pytest.fixture(scope="module")
def watcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with running("watcher", tmp_path_factory.mktemp("watcher") / "errors") as program:
        yield program


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Reference]:
    """What an undisturbed run of so many iterations has."""
    known: dict[int, Reference] = {}

    def reference(iters: int) -> Reference:
        if iters not in known:
            known[iters] = Reference.of_run(tmp_path_factory.mktemp("reference"), iters, size=SIZE)
        return known[iters]

    return reference


@dataclass(frozen=True)
class Place:
    """A fresh folder, and the options of its store."""

    url: str
    options: Mapping[str, str]


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "local":
        folder: Path = request.getfixturevalue("memory_folder")
        return Place(str(folder), {})
    server: S3Server = request.getfixturevalue("s3_server")
    return Place(f"{server.make_bucket('every-instant')}/{uuid.uuid4().hex}", server.storage_options)


@contextmanager
def watched(
    watcher: Program,
    place: Place,
    folder: str,
    digests: Mapping[int, str] | None,
    remark: Callable[[str], None],
    *,
    least: int,
) -> Iterator[None]:
    """Let the watcher look while the block runs; it found no instant without a checkpoint."""
    options = dict(place.options)
    watcher.ask({"url": f"{place.url}/{folder}", "options": options, "digests": digests})
    yield
    report: dict[str, Any] = watcher.ask({})
    assert not report["failures"], report["failures"][0]
    assert report["looks"] >= least
    remark(f"looked {report['looks']} times, and each time a checkpoint loaded")


def test_of_a_run_that_prunes_and_keeps_the_best(
    watcher: Program,
    trainer: Trainer,
    place: Place,
    references: Callable[[int], Reference],
    tmp_path: Path,
    remark: Callable[[str], None],
    soak: float,
) -> None:
    iters = round(ITERS * soak)
    digests = references(iters).digests
    with watched(watcher, place, "run", digests, remark, least=5):
        ended = trainer.train(tmp_path / "run", place.url, place.options, iters, size=SIZE)

    assert ended.status == 0, trainer.errors


def test_of_runs_that_are_killed(
    watcher: Program,
    trainer: Trainer,
    place: Place,
    references: Callable[[int], Reference],
    tmp_path: Path,
    remark: Callable[[str], None],
    soak: float,
) -> None:
    chance = random.Random(2)
    iters = round(ITERS * soak)
    digests = references(iters).digests
    with watched(watcher, place, "run", digests, remark, least=5):
        for _ in range(round(8 * soak)):
            moment = {"number": signal.SIGKILL, "word": "saved", "share": chance.uniform(0, 3)}
            trainer.train(tmp_path / "run", place.url, place.options, iters, [moment], size=SIZE)
        ended = trainer.train(tmp_path / "run", place.url, place.options, iters, size=SIZE)

    assert ended.status == 0, trainer.errors


@pytest.mark.parametrize("sizes", [[1000], [1000, 5000]], ids=["one size", "two sizes"])
def test_of_saves_that_replace_each_other_under_one_name(
    watcher: Program,
    saver: Program,
    place: Place,
    sizes: list[int],
    remark: Callable[[str], None],
    soak: float,
) -> None:
    order = {"url": f"{place.url}/run", "options": dict(place.options), "rows": sizes}
    with watched(watcher, place, "run", None, remark, least=5):
        answer = saver.ask({**order, "replacements": round(60 * soak)})

    assert answer["status"] == 0, saver.errors
