"""What ``dcp.save`` writes through `ShardWriter`, plain ``dcp.load`` and `restore` read."""

import uuid
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from asynchooks.checkpoint import ShardWriter, open_store, restore
from asynchooks.checkpoint._storage import read_all
from asynchooks.testing import run_ranks

KINDS = [
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.float64,
    torch.float8_e4m3fn,
    torch.bool,
    torch.complex64,
    torch.int8,
]

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*:FutureWarning")


def state() -> dict[str, Any]:
    tensors = {str(kind): torch.arange(24).reshape(4, 6).to(kind) for kind in KINDS}
    shared = torch.arange(10.0)
    return {
        "tensors": tensors,
        "turned": torch.arange(6.0).reshape(2, 3).t(),
        "part": shared[3:7],
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        "step": 7,
        "object": {"text": "a", "numbers": [1, 2]},
    }


def emptied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: emptied(item) for key, item in value.items()}
    return torch.zeros_like(value) if isinstance(value, torch.Tensor) else None


def save_on_rank(rank: int, folder: str) -> None:
    torch.manual_seed(0)
    replicated = {f"{index}": torch.randn(1000) for index in range(12)}
    save({"replicated": replicated}, storage_writer=ShardWriter(folder))
    back = {"replicated": emptied(replicated)}
    load(back, checkpoint_id=folder)
    assert all(torch.equal(back["replicated"][key], replicated[key]) for key in replicated)
    assert all(torch.equal(tensor, replicated[key]) for key, tensor in restore(folder)["replicated"].items())
    dist.barrier()


def test_plain_load_reads_every_kind_of_item(tmp_path: Path) -> None:
    saved = state()
    save(saved, storage_writer=ShardWriter(tmp_path / "iter_1"), no_dist=True)
    back = emptied(saved)
    load(back, checkpoint_id=tmp_path / "iter_1", no_dist=True)

    assert all(torch.equal(back["tensors"][kind], saved["tensors"][kind]) for kind in saved["tensors"])
    assert all(torch.equal(back[name], saved[name]) for name in ("turned", "part", "scalar", "empty"))
    assert (back["step"], back["object"]) == (saved["step"], saved["object"])


def test_restore_reads_what_plain_save_wrote(tmp_path: Path) -> None:
    saved = state()
    save(saved, storage_writer=ShardWriter(tmp_path / "iter_1"), no_dist=True)
    back = restore(tmp_path / "iter_1")

    assert all(torch.equal(back["tensors"][kind], saved["tensors"][kind]) for kind in saved["tensors"])
    assert all(torch.equal(back[name], saved[name]) for name in ("turned", "part", "scalar", "empty"))
    assert (back["step"], back["object"]) == (saved["step"], saved["object"])


@pytest.mark.ranks
@pytest.mark.parametrize("world_size", [2, 3])
def test_replicated_tensors_are_written_once_and_spread(tmp_path: Path, world_size: int) -> None:
    run_ranks(world_size, save_on_rank, str(tmp_path / "iter_1"))

    sizes = [path.stat().st_size for path in (tmp_path / "iter_1").glob("*.distcp")]
    assert len(sizes) == world_size
    assert max(sizes) < 1.2 * min(sizes)


def test_any_store_takes_a_sharded_checkpoint() -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}/iter_1")
    save({"weight": torch.ones(3)}, storage_writer=ShardWriter(store), no_dist=True)

    assert len(store.entries()) == 2
    assert Metadata.__name__.encode() in read_all(store, ".metadata")


def test_what_replaces_a_checkpoint_is_read_and_the_old_data_stays(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "iter_1")
    for value in (1.0, 2.0):
        save({"weight": torch.full((3,), value)}, storage_writer=writer, no_dist=True)

    assert restore(tmp_path / "iter_1")["weight"].tolist() == [2.0] * 3
    assert len([*(tmp_path / "iter_1").glob("*.distcp")]) == 2


def test_a_sparse_tensor_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointException, match=r"cannot write weight.* layout torch\.sparse_coo"):
        save({"weight": torch.eye(3).to_sparse()}, storage_writer=ShardWriter(tmp_path / "a"), no_dist=True)
