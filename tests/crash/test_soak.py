"""A thousand saves of a whole run: memory, threads, descriptors and files stay where they are."""

from __future__ import annotations

import gc
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, nn

from asynchooks.checkpoint import list_checkpoints, open_store, restore
from asynchooks.execution import Effects, Hook
from asynchooks.runner import MessageHub, Runner
from asynchooks.testing import S3Server

pytestmark = pytest.mark.slow

REMEMBERED = 100  # scalars of a run's history: 10,000 by default, which grow for so long
AROUND = 2**20


@dataclass(frozen=True)
class Level:
    """What the process holds when nothing is in flight."""

    rss_bytes: int
    threads: int
    descriptors: int
    files: int
    temporary_files: int
    checkpoint_bytes: int


class Measure(Hook):
    """Takes the levels every so often."""

    effects = Effects()
    priority = "LOWEST"

    def __init__(self, every: int, url: str, options: Mapping[str, str]) -> None:
        self.every = every
        self.store = open_store(f"{url}/run", options)
        self.levels: list[Level] = []

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if (runner.iter + 1) % self.every:
            return
        runner.executor.drain()
        gc.collect()
        process, entries = psutil.Process(), self.store.entries()
        self.levels.append(
            Level(
                process.memory_info().rss,
                process.num_threads(),
                process.num_fds(),
                len(entries),
                sum(1 for _ in Path(tempfile.gettempdir()).iterdir()),
                entries[f"iter_{runner.iter + 1}.pth"].nbytes,
            )
        )


class Mean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 1)

    def forward(self, batch: Tensor) -> Tensor:
        loss: Tensor = self.layer(batch).square().mean()
        return loss


def soak(work_dir: Path, url: str, options: Mapping[str, str], saves: int) -> None:
    measure = Measure(saves // 5, url, options)
    checkpoint = {
        "interval": 1,
        "by_epoch": False,
        "max_keep_ckpts": 2,
        "out_dir": url,
        "backend_args": options,
    }
    runner = Runner(
        model=Mean(),
        work_dir=work_dir,
        train_dataloader=[torch.ones(2, 8)] * 10,
        train_cfg={"by_epoch": False, "max_iters": saves},
        optim_wrapper={"optimizer": {"type": "Adam", "lr": 0.01}},
        default_hooks={"checkpoint": checkpoint},
        custom_hooks=[measure],
        randomness={"seed": 0},
    )
    runner.message_hub = MessageHub(max_length=REMEMBERED)
    runner.train()

    rows = {row.hook: row for row in runner.executor.statistics().hooks if row.point == "after_train_iter"}
    assert (rows["CheckpointHook"].finished, rows["CheckpointHook"].failed) == (saves, 0)
    warm, *_, last = measure.levels
    assert last.rss_bytes - warm.rss_bytes < AROUND
    assert last.threads <= warm.threads + 1  # a worker thread more or less, up to the limit of the portal
    assert last.descriptors <= warm.descriptors + 2  # a kept connection more or less
    assert last.files == warm.files == 6, "two checkpoints, their manifests, the pointer, the owner file"
    assert last.temporary_files == warm.temporary_files
    assert last.checkpoint_bytes - warm.checkpoint_bytes < 4096  # histories are cut back now and then
    committed = list_checkpoints(f"{url}/run", storage_options=options)
    assert [restore(info.url, storage_options=options)["meta"]["iter"] for info in committed] == [
        saves - 1,
        saves,
    ]


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


def test_a_thousand_saves_into_a_folder_leave_nothing_behind(tmp_path: Path, memory_folder: Path) -> None:
    soak(tmp_path / "run", str(memory_folder), {}, saves=1000)


@pytest.mark.s3
def test_hundreds_of_saves_on_s3_leave_nothing_behind(tmp_path: Path, s3_server: S3Server) -> None:
    url = f"{s3_server.make_bucket('soak')}/{uuid.uuid4().hex}"

    soak(tmp_path / "run", url, dict(s3_server.storage_options), saves=300)
