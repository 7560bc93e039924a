"""What a rank saves of its shards is what was there at the capture, however late it is copied."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from asynchooks import distributed
from asynchooks.checkpoint import Checkpointer, before_step, capture, restore
from asynchooks.checkpoint._sharded._planning import Planning
from asynchooks.checkpoint._sharded._snapshot import capture_shards, plan_shards
from asynchooks.errors import CaptureError
from asynchooks.testing import late_copies, run_ranks
from tests.checkpoint.sharded.talking import party


class Holder:
    """An object that holds a tensor."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def sharded_training(**options: Any) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(13, 7), torch.nn.Linear(7, 5), torch.nn.LayerNorm(5))
    for layer in model:
        fully_shard(layer)
    fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, **options)
    step(model, optimizer)
    return model, optimizer


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model(torch.ones(2, 13)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def content(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    model_state, optimizer_state = get_state_dict(model, optimizer)
    return {"state_dict": model_state, "optimizer": optimizer_state, "meta": {"iter": 1}}


def frozen(value: Any) -> Any:
    """Full tensors, copied now by torch alone, as nested lists."""
    if isinstance(value, dict):
        return {key: frozen(each) for key, each in value.items()}
    whole = value.full_tensor() if isinstance(value, DTensor) else value
    return whole.tolist() if isinstance(whole, torch.Tensor) else whole


def save_and_step(rank: int, url: str, kinds: dict[str, dict[str, Any]]) -> dict[str, tuple[Any, Any]]:
    """Capture, step at once, then save what was captured; return the states at the capture and after the step."""
    saves = Checkpointer(url, party=party())
    states: dict[str, tuple[Any, Any]] = {}
    for kind, options in kinds.items():
        model, optimizer = sharded_training(**options)
        state = content(model, optimizer)
        at_capture = frozen(state)
        with late_copies():
            snapshot = capture_shards(plan_shards(state, Planning(rank, distributed)), overlap=optimizer)
            step(model, optimizer)
        saves.save_sync(snapshot, name=kind, step=1)
        states[kind] = at_capture, frozen(content(model, optimizer))
    return states


def change_without_waiting(rank: int) -> str:
    """Write to a shard that is still being copied; return what the snapshot says of it."""
    model, optimizer = sharded_training()
    with late_copies():
        snapshot = capture_shards(plan_shards(content(model, optimizer), Planning()), overlap=optimizer)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
        before_step()
        with pytest.raises(CaptureError) as caught:
            snapshot.wait()
    return str(caught.value)


def capture_whole(rank: int) -> bool:
    """Capture sharded tensors as they are, in no plan; return whether they come back so."""
    model, optimizer = sharded_training()
    state = model.state_dict()
    expected = frozen(state)
    snapshot = capture(state, overlap=optimizer)
    step(model, optimizer)
    return bool(frozen(snapshot.state) == expected)


@pytest.mark.ranks
def test_a_step_right_after_the_capture_of_shards_is_not_in_the_file(tmp_path: Path) -> None:
    kinds = {"one_by_one": {"foreach": False}, "many": {"foreach": True}, "fused": {"fused": True}}
    states, _ = run_ranks(2, save_and_step, str(tmp_path), kinds)

    for kind, (at_capture, after) in states.items():
        assert frozen(restore(tmp_path / kind)) == at_capture
        assert after["state_dict"] != at_capture["state_dict"]


@pytest.mark.ranks
def test_a_shard_that_changes_without_waiting_fails_the_snapshot() -> None:
    for text in run_ranks(2, change_without_waiting):
        assert "was changed while it was still being copied" in text
        assert "0.weight" in text


@pytest.mark.ranks
def test_sharded_tensors_are_captured_without_a_plan_too() -> None:
    assert run_ranks(2, capture_whole) == [True, True]


def test_any_memory_of_a_state_is_saved_as_it_was(tmp_path: Path) -> None:
    conv = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(conv.parameters(), lr=0.1)
    table = torch.nn.Parameter(torch.randn(6, 8))
    optimizer.add_param_group({"params": [table]})
    views = {"turned": table.detach().t(), "strided": table.detach()[::2, 1::3], "row": table.detach()[3]}
    holder = Holder(torch.ones(5))
    state = {
        "state_dict": conv.state_dict(),
        "views": views,
        "meta": {"holder": [holder.tensor]},
        "held": holder,
    }
    expected = {"state_dict": frozen(conv.state_dict()), "views": frozen(views)}

    with late_copies():
        snapshot = capture_shards(plan_shards(state, Planning()), overlap=optimizer)
        holder.tensor.zero_()
        (conv(torch.ones(1, 3, 4, 4)).sum() + table.sum()).backward()
        optimizer.step()
    Checkpointer(tmp_path).save_sync(snapshot, name="iter_1", step=1)

    assert not conv.weight.is_contiguous()
    back = restore(tmp_path / "iter_1", weights_only=False)
    assert frozen({"state_dict": back["state_dict"], "views": back["views"]}) == expected
    assert (back["meta"]["holder"][0].tolist(), back["held"].tensor.tolist()) == ([1.0] * 5, [1.0] * 5)
