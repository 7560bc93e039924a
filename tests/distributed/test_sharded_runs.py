"""A run on ranks saves shards from the background, and goes on from them: itself, on fewer ranks, on more."""

from pathlib import Path
from typing import Any

import pytest
import torch

from asynchooks.checkpoint import list_checkpoints, restore, verify
from asynchooks.testing import run_ranks
from tests.distributed.runs import trained

pytestmark = pytest.mark.ranks


def trains(rank: int, folder: str, strategy: str | None, options: dict[str, Any]) -> Any:
    hook = {"interval": 2, "by_epoch": False, "max_keep_ckpts": 2, **options.pop("checkpoint", {})}
    losses, weights, _ = trained(
        folder,
        strategy=strategy and {"type": strategy},
        default_hooks={"checkpoint": hook, "logger": None},
        train_cfg={"by_epoch": False, "max_iters": options.pop("max_iters", 6)},
        **options,
    )
    return losses, weights


def run(folder: Path, ranks: int, strategy: str | None, **options: Any) -> Any:
    return run_ranks(
        ranks, trains, str(folder), strategy, {"batch_size": 12 // ranks, **options}, with_group=False
    )


@pytest.mark.parametrize("strategy", ["FSDP2", "DDP"])
def test_shards_from_the_background_are_those_of_a_run_that_saves_inline(
    tmp_path: Path, strategy: str
) -> None:
    hook = {"checkpoint": {"format": "sharded"}}
    run(tmp_path / "async", 2, strategy, **hook)
    run(tmp_path / "sync", 2, strategy, mode="sync", **hook)

    for name in ("iter_4", "iter_6"):
        saved, expected = (restore(tmp_path / mode / name) for mode in ("async", "sync"))
        for part in ("state_dict", "optimizer"):
            assert saved[part].keys() == expected[part].keys()
            for key, value in expected[part].items():
                assert _same(saved[part][key], value), key
    infos = list_checkpoints(tmp_path / "async")
    assert [info.name for info in infos] == ["iter_4", "iter_6"]
    assert [verify(info.url).layout for info in infos] == ["sharded", "sharded"]
    assert {path.name for path in (tmp_path / "async").iterdir() if path.is_dir()} >= {"iter_4", "iter_6"}


def test_a_run_goes_on_from_its_shards_bit_identically(tmp_path: Path) -> None:
    expected = run(tmp_path / "whole", 2, "FSDP2")
    run(tmp_path / "parts", 2, "FSDP2", max_iters=4)
    came = run(tmp_path / "parts", 2, "FSDP2", resume=True)

    assert [losses for losses, _ in came] == [losses[4:] for losses, _ in expected]
    assert came[0][1] == expected[0][1]


@pytest.mark.parametrize(("ranks", "strategy"), [(1, None), (3, "FSDP2"), (4, "DDP")])
def test_a_run_goes_on_from_its_shards_on_other_ranks(
    tmp_path: Path, ranks: int, strategy: str | None
) -> None:
    expected = run(tmp_path / "whole", 2, "FSDP2")
    run(tmp_path / "parts", 2, "FSDP2", max_iters=4)
    came = run(tmp_path / "parts", ranks, strategy, resume=True)

    for name, numbers in expected[0][1].items():
        assert came[0][1][name] == pytest.approx(numbers, abs=1e-6), name


def test_a_run_falls_back_past_shards_that_are_damaged(tmp_path: Path) -> None:
    expected = run(tmp_path, 2, "FSDP2")
    data = min((tmp_path / "iter_6").glob("__1_0.*.distcp"))
    with data.open("r+b") as file:
        file.seek(data.stat().st_size // 2)
        file.write(b"damage")

    came = run(tmp_path, 2, "FSDP2", resume=True)
    assert [losses for losses, _ in came] == [losses[4:] for losses, _ in expected]


def _same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)
