"""The parts of a run's state, through torch's own format, to any number of ranks."""

from pathlib import Path
from typing import Any

import pytest
from torch.distributed.checkpoint._nested_dict import unflatten_state_dict
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from asynchooks import Runner
from asynchooks.testing import run_ranks
from tests.distributed.runs import Losses, run_of, weights

pytestmark = pytest.mark.ranks


def run_for(folder: str, strategy: str | None, ranks: int, hooks: list[Any], optimizer: str) -> Runner:
    return run_of(
        folder,
        batch_size=8 // ranks,
        strategy=strategy and {"type": strategy},
        custom_hooks=hooks,
        optim_wrapper={
            "optimizer": {"type": optimizer, "lr": 0.01},
            "paramwise_cfg": {"bias_lr_mult": 2.0},
        },
        param_scheduler={"type": "MultiStepLR", "by_epoch": False, "milestones": [3]},
    )


def trains_once(folder: str, strategy: str | None, ranks: int, hooks: list[Any], optimizer: str) -> Runner:
    runner = run_for(folder, strategy, ranks, hooks, optimizer)
    runner.train_loop._max_epochs = 1
    runner.train()
    runner.train_loop._max_epochs = 2
    return runner


def saves_parts(rank: int, folder: str, strategy: str | None, ranks: int, optimizer: str) -> Any:
    """Train an epoch, save, train another; losses of the second, and weights."""
    losses = Losses()
    runner = trains_once(folder, strategy, ranks, [losses], optimizer)
    content = runner.content(form="sharded")
    assert content is not None
    save(content, checkpoint_id=f"{folder}/parts")
    losses.values.clear()
    runner.train()
    return losses.values, weights(runner.model)


def loads_parts(
    rank: int, folder: str, strategy: str | None, ranks: int, saved_by: int, optimizer: str
) -> Any:
    losses = Losses()
    runner = run_for(folder, strategy, ranks, [losses], optimizer)
    _ = runner.train_loop
    metadata = FileSystemReader(f"{folder}/parts").read_metadata()
    kinds = {
        name: (md.size, md.properties.dtype) if isinstance(md, TensorStorageMetadata) else None
        for name, md in metadata.state_dict_metadata.items()
    }
    flat = runner.places(kinds, saved_by=saved_by)
    load(flat, checkpoint_id=f"{folder}/parts")
    paths = {name: path for name, path in metadata.planner_data.items() if name in flat}
    runner.take_up(unflatten_state_dict(flat, paths), "parts")
    runner.train()
    return losses.values, weights(runner.model)


@pytest.mark.parametrize(
    ("saver", "taker", "optimizer"),
    [
        ("FSDP2", "FSDP2", "AdamW"),
        ("FSDP2", "DDP", "AdamW"),
        ("FSDP2", None, "SGD"),
        ("DDP", "FSDP2", "AdamW"),
    ],
)
def test_parts_are_taken_up_by_any_strategy(
    tmp_path: Path, saver: str, taker: str | None, optimizer: str
) -> None:
    ranks = 2 if taker else 1
    expected = run_ranks(2, saves_parts, str(tmp_path), saver, 2, optimizer, with_group=False)

    came = run_ranks(ranks, loads_parts, str(tmp_path), taker, ranks, 2, optimizer, with_group=True)

    for losses in zip(*(rank[0] for rank in expected), *(rank[0] for rank in came), strict=True):
        before, after = losses[:2], losses[2:]
        assert sum(after) / len(after) == pytest.approx(sum(before) / 2, abs=1e-6)
    for name, numbers in expected[0][1].items():
        assert came[0][1][name] == pytest.approx(numbers, abs=1e-6), name
    if saver == taker:
        assert came == expected
