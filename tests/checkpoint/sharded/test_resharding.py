"""A sharded checkpoint loads on any number of ranks, in any form, and has the same bits."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from asynchooks.checkpoint import ShardReader, restore
from asynchooks.errors import ForeignCheckpointError
from asynchooks.testing import run_ranks

pytestmark = pytest.mark.ranks


def trained(seed: int, *, sharded: bool) -> dict[str, Any]:
    """The state of a model and AdamW after a step, in DCP's form: sizes that no number of ranks divides."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(13, 7), torch.nn.Linear(7, 5), torch.nn.LayerNorm(5))
    if sharded:
        for layer in model:
            fully_shard(layer)
        fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(2, 13)).square().sum().backward()
    optimizer.step()
    model_state, optimizer_state = get_state_dict(model, optimizer)
    return {
        "state_dict": model_state,
        "optimizer": optimizer_state,
        "meta": {"iter": 3, "names": ["a", None]},
    }


def save(rank: int, url: str) -> Any:
    state = trained(0, sharded=True)
    dcp_save(state, checkpoint_id=url)
    return whole(state)


def load_sharded(rank: int, url: str, way: str) -> Any:
    state = trained(1, sharded=dist.get_world_size() > 1)
    state["meta"] = {"iter": 0, "names": []}
    if way == "restore":
        restore(url, into=state)
    else:
        dcp_load(state, storage_reader=ShardReader(url))
    return whole(state)


def load_replicated(rank: int, url: str) -> Any:
    state = trained(1, sharded=False)
    restore(url, into=state)
    return whole(state)


def whole(value: Any) -> Any:
    """The same state with full tensors, as numbers that travel between processes."""
    if isinstance(value, DTensor):
        value = value.full_tensor()
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), tuple(value.shape), value.detach().numpy().tobytes())
    return {key: whole(each) for key, each in value.items()} if isinstance(value, dict) else value


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    url = str(tmp_path_factory.mktemp("run") / "iter_3")
    return url, run_ranks(2, save, url)[0]


@pytest.mark.parametrize("way", ["restore", "dcp.load"])
@pytest.mark.parametrize("world_size", [1, 3, 4])
def test_any_number_of_ranks_loads_its_own_shards(saved: tuple[str, Any], world_size: int, way: str) -> None:
    url, expected = saved

    assert run_ranks(world_size, load_sharded, url, way) == [expected] * world_size


def test_replicas_load_what_shards_saved(saved: tuple[str, Any]) -> None:
    url, expected = saved

    assert run_ranks(2, load_replicated, url) == [expected] * 2


def test_a_process_without_ranks_gets_full_tensors(saved: tuple[str, Any]) -> None:
    url, expected = saved

    assert whole(restore(url)) == expected


def test_keys_select_a_part(saved: tuple[str, Any]) -> None:
    url, expected = saved
    part = restore(url, keys=["state_dict.0", "meta.iter"])

    assert whole(part) == {
        "state_dict": {k: v for k, v in expected["state_dict"].items() if k.startswith("0.")},
        "meta": {"iter": 3},
    }


def test_a_folder_without_a_manifest_is_named_as_unverified(
    saved: tuple[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    restore(saved[0], keys=["meta"])

    assert "no manifest: loaded unverified" in caplog.text


def test_nothing_is_changed_where_the_states_differ(tmp_path: Path) -> None:
    url = str(tmp_path / "iter_1")
    save_plain({"a": torch.ones(3), "b": torch.ones(2), "c": 1}, url)
    into = {"a": torch.zeros(3), "b": torch.zeros(3), "d": torch.zeros(1)}

    with pytest.raises(ForeignCheckpointError, match=r"Missing in the file: d\. Only .*: c\. Different: b"):
        restore(url, into=into)
    assert not any(tensor.any() for tensor in into.values())


def save_plain(state: dict[str, Any], url: str) -> None:
    with pytest.warns(UserWarning, match="single process"):
        dcp_save(state, checkpoint_id=url)
