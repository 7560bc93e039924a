"""What holds in a folder of sharded checkpoints whatever has happened: all readers agree, and a later run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load

from asynchooks.checkpoint import (
    Checkpointer,
    KeepLast,
    Planning,
    capture_shards,
    inspect_folder,
    list_checkpoints,
    plan_shards,
    read_pointer,
    restore,
    restore_latest,
    sweep,
    verify,
)
from tests.distributed.sharded_saves import LAST_NAME, state


def steps_seen(folder: Path) -> list[int]:
    """What all readers agree on: each checkpoint is whole, and the newest is what a run would resume from."""
    infos = list_checkpoints(folder)
    for info in infos:
        verify(info.url)
        assert_is_state_of(restore(info.url), info.step)
        plain = {
            "state_dict": {name: torch.empty_like(tensor) for name, tensor in state(0)["state_dict"].items()}
        }
        dcp_load(plain, checkpoint_id=info.url, no_dist=True)
        assert_is_state_of(plain, info.step)
    found = restore_latest(folder)
    assert found is not None
    assert found[0] == infos[-1]
    assert_is_state_of(found[1], infos[-1].step)
    return [info.step for info in infos]


def assert_is_state_of(content: dict[str, Any], step: int) -> None:
    expected = state(step)["state_dict"]
    assert content["state_dict"].keys() == expected.keys()
    assert all(torch.equal(content["state_dict"][name], tensor) for name, tensor in expected.items())


def assert_a_later_run_goes_on(folder: Path) -> None:
    """It saves at the same name and beside it, and a sweep leaves what is committed and nothing else."""
    checkpointer = Checkpointer(folder, run_id="run")
    for step, name in ((5, LAST_NAME), (6, "iter_6")):
        snapshot = capture_shards(plan_shards(state(step), Planning()))
        checkpointer.save_sync(snapshot, name=name, step=step, pointer="last", keep=KeepLast(2))
    checkpointer.release_sync()
    sweep(folder, older_than_s=-60)
    assert steps_seen(folder) == [5, 6]
    assert inspect_folder(folder).others == ()
    assert read_pointer(folder) == str(folder / "iter_6")
    names = {LAST_NAME, "iter_6"}
    assert {path.name for path in folder.iterdir() if path.is_dir()} == names
    assert all(len(list((folder / name).iterdir())) == 2 for name in names)
