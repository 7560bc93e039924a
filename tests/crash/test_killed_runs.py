"""Runs that are ended at random moments of their saves, and resumed: nothing but time is lost."""

from __future__ import annotations

import random
import signal
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from asynchooks.checkpoint import CheckpointInfo, list_checkpoints, open_store, sweep
from asynchooks.checkpoint._owner import OWNER_FILE
from asynchooks.testing import S3Server

from .conftest import Trainer
from .reference import Reference

ITERS = 100

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]  # a busy machine needs more kills


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return Reference.of_run(tmp_path_factory.mktemp("reference"), ITERS)


@dataclass
class Chain:
    """A run that is ended, resumed, ended ... and the checks after each end."""

    trainer: Trainer
    work_dir: Path
    out_dir: str
    options: Mapping[str, str]
    reference: Reference

    def __post_init__(self) -> None:
        self.newest = 0
        self.unfinished: set[str] = set()
        self.hits = 0

    @property
    def url(self) -> str:
        return f"{self.out_dir}/{self.work_dir.name}"

    def end_at(self, moment: Mapping[str, Any], status: int) -> None:
        """Start, resume from the newest checkpoint, and end at a moment; then look at what is there."""
        ended = self.trainer.train(self.work_dir, self.out_dir, self.options, ITERS, [moment])

        assert ended.status == status, self.trainer.errors
        assert ended.all_of("started") in ([self.newest], [])
        committed = list_checkpoints(self.url, storage_options=self.options)
        newest = max((info for info in committed if info.saved_as == "last"), key=_step, default=None)
        assert newest is not None or not self.newest
        if newest is not None:
            assert newest.step >= max([self.newest, *ended.all_of("saved")])
            self.reference.check(newest, self.options)
            self.newest = newest.step
        before, self.unfinished = self.unfinished, self.find_unfinished({info.name for info in committed})
        self.hits += bool(self.unfinished - before)

    def find_unfinished(self, committed: set[str]) -> set[str]:
        """What stands beside checkpoints and pointers: each file of a save that came to no end."""
        return {
            name
            for name in open_store(self.url, self.options).entries().keys() - {OWNER_FILE}
            if name.removesuffix(".manifest.json") not in committed and not name.endswith("_checkpoint")
        }

    def go_to_the_end(self) -> None:
        """Resume once more and train to the end: the files and all their tensors are those of the reference."""
        ended = self.trainer.train(self.work_dir, self.out_dir, self.options, ITERS)
        sweep(self.url, older_than_s=-60, storage_options=self.options)

        assert ended.status == 0, self.trainer.errors
        assert ended.all_of("started") == [self.newest]
        assert sorted(open_store(self.url, self.options).entries()) == self.reference.files
        for info in list_checkpoints(self.url, storage_options=self.options):
            self.reference.check(info, self.options)


def _step(info: CheckpointInfo) -> int:
    return info.step


def kill_again_and_again(chain: Chain, times: int) -> None:
    """Kill so often, and then until enough kills came in the middle of a save: fewer do on a busy machine."""
    chance = random.Random(0)
    enough, kills = times // 5, 0
    while kills < times or (chain.hits < enough and kills < 3 * times and chain.newest < ITERS - 10):
        word, share = chance.choice(["started", "saved"]), chance.uniform(0, 2)
        chain.end_at({"number": signal.SIGKILL, "word": word, "share": share}, -signal.SIGKILL)
        kills += 1
    chain.go_to_the_end()

    assert chain.hits >= enough, "so many kills at least came in the middle of a save"


def test_killed_runs_end_as_one_that_was_not_killed_on_a_local_disk(
    trainer: Trainer, tmp_path: Path, reference: Reference, soak: float
) -> None:
    chain = Chain(trainer, tmp_path / "run", str(tmp_path / "saved"), {}, reference)

    kill_again_and_again(chain, round(30 * soak))


@pytest.mark.s3
@pytest.mark.slow
def test_killed_runs_end_as_one_that_was_not_killed_on_s3(
    trainer: Trainer, tmp_path: Path, reference: Reference, s3_server: S3Server, soak: float
) -> None:
    url = f"{s3_server.make_bucket('killed-runs')}/{uuid.uuid4().hex}"
    chain = Chain(trainer, tmp_path / "run", url, s3_server.storage_options, reference)

    kill_again_and_again(chain, round(30 * soak))


def test_interrupted_runs_finish_their_saves_and_leave_nothing_else(
    trainer: Trainer, tmp_path: Path, reference: Reference
) -> None:
    chain, chance = Chain(trainer, tmp_path / "run", str(tmp_path / "saved"), {}, reference), random.Random(1)
    for _ in range(10):
        word, share = chance.choice(["started", "saved"]), chance.uniform(0, 2)
        chain.end_at({"number": signal.SIGINT, "word": word, "share": share}, 130)
        assert not chain.unfinished
    chain.go_to_the_end()
