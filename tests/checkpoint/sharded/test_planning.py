"""What a plan names, what it depends on, and what it refuses before anything is copied."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint._nested_dict import flatten_state_dict

from asynchooks.checkpoint import Checkpointer, capture_shards, plan_shards, restore
from asynchooks.checkpoint._sharded._planning import Alone, Planning, flattened
from asynchooks.errors import CaptureError, ConfigError

WEIGHT = torch.ones(2)


@pytest.mark.parametrize(
    "state",
    [
        {"state_dict": OrderedDict({"a.b": WEIGHT, "c": torch.nn.Parameter(WEIGHT)})},
        {"optimizer": {"state.a.step": 1, "betas": (0.9, WEIGHT), "lr": [0.1], "3": None}},
        {"deep": {"a": {"c": [WEIGHT, {"d": [[1], [{"f": 2}]]}]}, "e": "text"}, "top": WEIGHT},
    ],
    ids=["flat", "numbers", "deep"],
)
def test_parts_have_the_names_that_dcp_gives_them(state: dict[str, Any]) -> None:
    expected, _ = flatten_state_dict(state)

    assert list(flattened(state)) == list(expected)
    assert all(flattened(state)[name] is expected[name] for name in expected)


def test_two_parts_of_one_name_are_refused() -> None:
    with pytest.raises(CaptureError, match="cannot be sharded.*two parts have the name 'a.b.c'"):
        Planning().plan({"a": {"b.c": 1}, "a.b": {"c": 2}})


@pytest.mark.parametrize(
    "odd",
    [
        {3: 1.5},
        {},
        {"a": {}, "b": [{}, {1: 2}]},
        {"a": {0: {"b": 1}, True: ()}},
        {"a": [WEIGHT, {}, {-1: "c"}]},
    ],
    ids=str,
)
def test_a_dict_without_strings_as_keys_or_without_any_comes_back_as_it_was(
    tmp_path: Path, odd: dict[Any, Any]
) -> None:
    state = {"odd": odd, "none": {}, "w": WEIGHT}
    shards = capture_shards(plan_shards(state, Planning(objects={"none.*"})))
    url = Checkpointer(tmp_path).save_sync(shards, name="iter_1", step=1).url

    assert str(restore(url)) == str(state)
    assert str(restore(url, into={"odd": deepcopy(odd), "none": {}, "w": torch.zeros(2)})) == str(state)


@pytest.mark.parametrize(
    "state", [{"o": {"state": {0: {"m": WEIGHT}}}}, {0: WEIGHT}, {0: 1}, {"a": [{1: WEIGHT}]}], ids=str
)
def test_tensors_under_keys_that_would_come_back_as_strings_are_refused(state: dict[Any, Any]) -> None:
    with pytest.raises(CaptureError, match=r"rank 0: .* has the key \d, which would come back as '\d'"):
        Planning().plan(state)


@pytest.mark.parametrize(
    "changed", [{"w": torch.ones(3)}, {"w": WEIGHT.double()}, {"w": 1}, {"v": WEIGHT}], ids=str
)
def test_a_plan_is_kept_until_the_structure_changes(changed: dict[str, Any]) -> None:
    planning = Planning(objects={"meta"})
    first, _ = planning.plan({"state_dict": {"w": WEIGHT}, "meta": {"iter": 1}})
    again, _ = planning.plan({"state_dict": {"w": WEIGHT + 1}, "meta": {"iter": 2, "more": "text"}})
    other, _ = planning.plan({"state_dict": changed, "meta": {"iter": 3}})

    assert again is first
    assert other is not first


def test_what_cannot_be_written_as_shards_is_refused_by_name() -> None:
    with pytest.raises(CaptureError, match=r"cannot write state_dict\.w as shards"):
        Planning().plan({"state_dict": {"w": torch.eye(3).to_sparse()}})


def test_shards_of_other_ranks_than_the_party_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    class OfTwo(Alone):
        def decided_by_first(self, mine: Any, decide: Callable[[list[Any]], Sequence[Any]]) -> Any:
            return decide([mine, mine])[0]

    shards = capture_shards(plan_shards({"a": WEIGHT, "b": WEIGHT}, Planning(talk=OfTwo())))

    with pytest.raises(ConfigError, match=r"step 1: iter_1 is planned for 2 ranks.*with 1: .*party=Party"):
        Checkpointer(tmp_path).save_sync(shards, name="iter_1", step=1)
    assert list(tmp_path.iterdir()) == []
