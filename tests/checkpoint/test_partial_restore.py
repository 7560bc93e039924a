"""A part of a checkpoint, and a checkpoint into tensors that exist."""

import collections
from pathlib import Path
from typing import Any

import pytest
import torch

from asynchooks.checkpoint import (
    Checkpointer,
    capture,
    find_latest,
    open_store,
    restore,
    restore_latest,
)
from asynchooks.checkpoint._restore._restore import _restore, _Wish
from asynchooks.errors import CorruptCheckpointError, ForeignCheckpointError, UnknownNameError
from asynchooks.testing import FaultyStore


def state() -> dict[str, Any]:
    torch.manual_seed(0)
    weight = torch.randn(300, 7)
    return {
        "state_dict": collections.OrderedDict(
            {
                "backbone.weight": weight,
                "backbone.tied": weight,
                "backbone.row": weight[3],
                "backbone2.weight": torch.randn(5),
                "head.weight": torch.nn.Parameter(torch.randn(4, 4).t()),
            }
        ),
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0), "half": torch.randn(9).bfloat16()}},
            "lr": 0.5,
        },
        "meta": {"iter": 7, "names": ["a", ("b", torch.ones(2))]},
        "empty": torch.empty(0, 3),
    }


@pytest.fixture
def url(tmp_path: Path) -> str:
    return Checkpointer(tmp_path).save_sync(capture(state()), name="iter_7.pth", step=7).url


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_same(mine, theirs)
    else:
        assert one == other


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (["meta"], {"meta": None}),
        (["state_dict"], {"state_dict": None}),
        (["state_dict.backbone"], {"state_dict": ["backbone.weight", "backbone.tied", "backbone.row"]}),
        (["state_dict.head.weight", "meta"], {"state_dict": ["head.weight"], "meta": None}),
        (["optimizer.state.0"], {"optimizer": ["state"]}),
        (["empty"], {"empty": None}),
    ],
)
def test_a_key_selects_the_entry_of_that_name_and_what_is_below(
    url: str, keys: list[str], names: dict[str, Any]
) -> None:
    whole = state()

    part = restore(url, keys=keys)

    assert set(part) == set(names)
    for name, inner in names.items():
        wanted = whole[name] if inner is None else type(whole[name])((n, whole[name][n]) for n in inner)
        if name == "optimizer":
            wanted = {"state": {0: whole["optimizer"]["state"][0]}}
        assert_same(part[name], wanted)


def test_a_part_is_tied_as_the_whole_was(url: str) -> None:
    part = restore(url, keys=["state_dict.backbone"])["state_dict"]

    part["backbone.weight"][3] = 5.0

    assert part["backbone.tied"] is part["backbone.weight"]
    assert torch.equal(part["backbone.row"], torch.full((7,), 5.0))


@pytest.mark.parametrize(
    "keys", [["state_dict.bakbone"], ["stat_dict"], ["meta", "state_dict.backbone.weights"]]
)
def test_an_unknown_key_is_named_with_the_nearest(url: str, keys: list[str]) -> None:
    with pytest.raises(UnknownNameError, match=r"no entry '.*'\. Did you mean"):
        restore(url, keys=keys)


@pytest.mark.parametrize("keys", ["state_dict", [], [""], [3]])
def test_keys_are_a_list_of_names(url: str, keys: Any) -> None:
    with pytest.raises(TypeError, match="list of names"):
        restore(url, keys=keys)


def large_state() -> dict[str, Any]:
    return {"a": torch.arange(6_000_000.0), "b": torch.arange(6_000_000.0) + 1, "meta": {"iter": 1}}


def test_a_part_reads_only_the_chunks_it_needs(tmp_path: Path) -> None:
    info = Checkpointer(tmp_path).save_sync(capture(large_state()), name="a.pth", step=1)
    path = Path(info.url)
    data = bytearray(path.read_bytes())
    data[40_000_000] ^= 1  # in "b"
    path.write_bytes(data)
    store = FaultyStore(open_store(tmp_path))

    assert _restore(store, "a.pth", _Wish(("meta",), None, None, True)) == {"meta": {"iter": 1}}
    assert len([call for call in store.calls if call.operation == "read_into"]) <= 4
    assert torch.equal(restore(path, keys=["a"])["a"], large_state()["a"])
    with pytest.raises(CorruptCheckpointError, match="chunk 3"):
        restore(path, keys=["b"])


def test_existing_tensors_are_filled_in_place(url: str) -> None:
    target = state()
    places = {name: tensor.data_ptr() for name, tensor in target["state_dict"].items()}
    with torch.no_grad():
        for tensor in target["state_dict"].values():
            tensor.zero_()
    target["meta"]["iter"] = 0

    filled = restore(url, into=target)

    assert filled is target
    assert_same(target, state())
    assert {name: tensor.data_ptr() for name, tensor in target["state_dict"].items()} == places


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(7, 300).t(),
        torch.zeros(600, 7)[::2],
        torch.zeros(300, 14)[:, ::2],
        torch.nn.Parameter(torch.zeros(300, 7)),
        torch.zeros(301, 7)[1:],
    ],
)
def test_destinations_may_lie_in_memory_as_they_like(url: str, tensor: torch.Tensor) -> None:
    target = {
        "state_dict": {"backbone.weight": tensor, "backbone.tied": tensor, "backbone.row": torch.zeros(7)}
    }

    restore(url, keys=["state_dict.backbone"], into=target)

    assert torch.equal(tensor, state()["state_dict"]["backbone.weight"])
    assert torch.equal(target["state_dict"]["backbone.row"], tensor[3])


def test_what_does_not_fit_is_listed_before_anything_is_written(url: str) -> None:
    target = {
        "state_dict": {
            "backbone.weight": torch.zeros(300, 7),
            "backbone.tied": torch.zeros(300, 7),
            "backbone.row": torch.zeros(8),
            "backbone2.weight": torch.zeros(5, dtype=torch.float64),
            "neck.weight": torch.zeros(1),
        }
    }

    with pytest.raises(ForeignCheckpointError, match="nothing was changed") as failed:
        restore(url, keys=["state_dict"], into=target)

    message = str(failed.value)
    assert "Missing in the file: state['state_dict']['neck.weight']" in message
    assert "Only in the file: state['state_dict']['head.weight']" in message
    assert "['backbone.row'] (float32 (7,) in the file, float32 (8,) here)" in message
    assert "['backbone2.weight'] (float32 (5,) in the file, float64 (5,) here)" in message
    assert not target["state_dict"]["backbone.weight"].any()


@pytest.mark.parametrize("tensor", [torch.zeros(7).expand(300, 7), torch.empty(300, 7, device="meta")])
def test_a_destination_needs_memory_for_each_element(url: str, tensor: torch.Tensor) -> None:
    with pytest.raises(ForeignCheckpointError, match=r"expanded|meta"):
        restore(url, keys=["state_dict.backbone.weight"], into={"state_dict": {"backbone.weight": tensor}})


def test_a_model_is_filled_without_a_second_copy(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(9, 4), torch.nn.BatchNorm1d(4))
    wanted = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    url = Checkpointer(tmp_path).save_sync(capture({"model": model.state_dict()}), name="a.pth", step=1).url
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)

    restore(url, into={"model": model.state_dict()})

    assert_same(dict(model.state_dict()), wanted)


def test_into_and_map_location_exclude_each_other(url: str) -> None:
    with pytest.raises(TypeError, match="leave map_location out"):
        restore(url, into={}, map_location="cpu")


@pytest.mark.parametrize(
    "held",
    [
        collections.deque([1]),
        torch.ones(3).to_sparse(),
    ],
)
def test_a_state_without_an_outline_is_loaded_whole(tmp_path: Path, held: Any) -> None:
    saved = {"held": held, "w": torch.ones(5)}
    url = Checkpointer(tmp_path).save_sync(capture(saved), name="a.pth", step=1).url
    trust = isinstance(held, torch.Tensor)
    target = {"w": torch.zeros(5)}

    part = restore(url, keys=["held", "w"], weights_only=trust)
    restore(url, keys=["w"], into=target, weights_only=trust)

    assert set(part) == {"held", "w"}
    assert torch.equal(part["w"], saved["w"])
    assert torch.equal(target["w"], saved["w"])


def test_a_plain_torch_save_is_read_in_parts_too(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "plain.pth")

    assert_same(restore(tmp_path / "plain.pth", keys=["meta"]), {"meta": state()["meta"]})


@pytest.mark.parametrize("device", ["meta", torch.device("meta")])
def test_map_location_is_torchs(url: str, device: Any) -> None:
    assert restore(url, map_location=device)["state_dict"]["head.weight"].is_meta
    assert restore(url, keys=["state_dict"], map_location=device)["state_dict"]["head.weight"].is_meta
    assert restore(url, map_location=lambda storage, _: storage)["empty"].shape == (0, 3)


def test_the_latest_is_read_once(tmp_path: Path) -> None:
    for step in (1, 2):
        Checkpointer(tmp_path).save_sync(
            capture({"w": torch.full((9,), step)}), name=f"iter_{step}.pth", step=step
        )
    store = FaultyStore(open_store(tmp_path))

    found = restore_latest(store)

    assert found is not None
    assert (found[0].step, found[1]["w"][0]) == (2, 2)
    assert not [call for call in store.calls if call.name == "iter_1.pth"]
    assert len([call for call in store.calls if call.operation == "read_into"]) <= 4


def test_the_latest_that_is_whole_is_restored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (1, 2):
        Checkpointer(tmp_path).save_sync(
            capture({"w": torch.full((9,), step)}), name=f"iter_{step}.pth", step=step
        )
    path = tmp_path / "iter_2.pth"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    target = {"w": torch.zeros(9, dtype=torch.int64)}

    found = restore_latest(tmp_path, into=target)
    chosen = find_latest(tmp_path)

    assert found is not None
    assert found[0] == chosen
    assert target["w"][0] == 1
    assert "falling back past" in caplog.text


def test_nothing_to_restore_is_none(tmp_path: Path) -> None:
    assert restore_latest(tmp_path / "none") is None
