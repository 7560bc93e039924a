"""What ranks tell of their data files is little, is believed as far as it fits the plan, and becomes `.metadata`."""

import io
import json
import zlib
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from asynchooks.checkpoint import Content
from asynchooks.checkpoint._content import checksum, digest
from asynchooks.checkpoint._files import File, chunk_lengths
from asynchooks.checkpoint._sharded._datafile import data_name
from asynchooks.checkpoint._sharded._layout import lay_out, plain, starts_of
from asynchooks.checkpoint._sharded._metadata import decode_metadata
from asynchooks.checkpoint._sharded._pickles import pickled
from asynchooks.checkpoint._sharded._planning import Planning, RankPlan
from asynchooks.checkpoint._sharded._results import Teller, Told
from asynchooks.checkpoint._sharded._snapshot import capture_shards, plan_shards
from asynchooks.errors import CorruptCheckpointError

VALUES = [
    0,
    1,
    True,
    False,
    None,
    1.0,
    0.0,
    -0.0,
    "1",
    "None",
    "x" * 1000,
    (0.9, 0.999),
    (1, True),
    [1],
    {"a": 1},
]


def state(step: object) -> dict[str, Any]:
    tensors = {f"layer{number}.weight": torch.full((number % 5, 3), 1.0) for number in range(300)}
    options = {f"{name}.{option}": (0.9, 0.99) for name in tensors for option in ("betas", "lr", "eps")}
    return {"state_dict": tensors, "optimizer": {"param_groups": options}, "meta": {"iter": step}}


def laid_out(planning: Planning, step: object, save_id: str) -> tuple[File, list[int], RankPlan]:
    planned = plan_shards(state(step), planning)
    content, lengths = capture_shards(planned).lay_out()
    chunks = checksum(content, chunk_lengths(content.nbytes, 2**24))
    return File.of(data_name(0, save_id), chunks, 2**24), lengths, planned.plan


def save_id_of(number: int) -> str:
    return digest([bytes([number])])


def text_of(content: Content) -> bytes:
    return b"".join(content.buffers)


def test_an_object_is_pickled_by_value_and_type() -> None:
    for value in VALUES * 2:
        assert repr(load(pickled(value))) == repr(value)


def load(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=True)


@pytest.mark.parametrize("sizes", [[3], [0, 1, 5000, 3], [200_000, 7, 70_000, 0], []])
def test_each_item_loads_from_where_it_starts(sizes: Sequence[int]) -> None:
    tensors = [torch.arange(float(size)) for size in sizes]
    content, lengths = lay_out([plain("t", tensor) for tensor in tensors], [pickled("a"), pickled([1])])
    text = text_of(content)
    starts = starts_of(lengths, ntensors=len(tensors))
    items = [load(text[start : start + length]) for start, length in zip(starts, lengths, strict=True)]

    assert all(map(torch.equal, items, tensors))
    assert items[len(tensors) :] == ["a", [1]]
    assert len(content.buffers) <= 1 + 2 * sum(size > 4096 for size in sizes)


def test_the_second_save_tells_nothing_of_its_items_and_makes_the_same_metadata() -> None:
    planning, teller, told = Planning(), Teller(), Told()
    seen: list[tuple[int, Any]] = []
    for number, step in enumerate([1, 2, "another length" * 9]):
        file, lengths, plan = laid_out(planning, step, save_id_of(number))
        payload = teller.tell(file, lengths)
        files, data = told.gather([payload], plan, "step", save_id_of(number))
        teller.heard()
        _, fresh = Told().gather([Teller().tell(file, lengths)], plan, "step", save_id_of(number))
        assert files == [file]
        assert decode_metadata(data, "it") == decode_metadata(fresh, "it")
        seen.append((len(payload), lengths))

    assert seen[1][0] < min(seen[0][0], seen[2][0]) < 1000
    assert seen[0][1] == seen[1][1] != seen[2][1]


def test_after_a_failed_round_all_is_told_again() -> None:
    file, lengths, plan = laid_out(Planning(), 1, save_id_of(0))
    teller = Teller()
    first = teller.tell(file, lengths)
    teller.heard()
    teller.forget()

    assert teller.tell(file, lengths) == first
    Told().gather([first], plan, "step", save_id_of(0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"file": None},
        {"lengths": [1]},
        {"lengths": ["x"]},
        {"lengths": None, "layout": "unheard of"},
        {"name": "__1_0.distcp"},
        [],
        b"\xff",
    ],
    ids=str,
)
def test_what_does_not_fit_the_plan_names_the_rank(wrong: Any) -> None:
    file, lengths, plan = laid_out(Planning(), 1, save_id_of(0))
    told: Any = json.loads(zlib.decompress(Teller().tell(file, lengths)))
    if isinstance(wrong, dict):
        told["file"]["name"] = wrong.pop("name", file.name)
        told.update(wrong)
    payload = (
        wrong if isinstance(wrong, bytes) else zlib.compress(json.dumps(told if wrong else wrong).encode())
    )

    with pytest.raises(CorruptCheckpointError, match="step 1: rank 0 did not write what was planned"):
        Told().gather([payload], plan, "step 1", save_id_of(0))
