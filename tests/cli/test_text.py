from __future__ import annotations

from pathlib import Path

import pytest
import torch

from asynchooks._cli.demo._gpt import GPT, GPTSize
from asynchooks._cli.demo._text import Windows, read_corpus, split_corpus
from asynchooks.errors import ConfigError


def test_the_corpus_is_the_same_text_each_time() -> None:
    assert torch.equal(read_corpus(200_000), read_corpus(200_000))
    assert len(read_corpus(200_000)) == 200_000


def test_a_python_without_its_sources_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="standard library"):
        read_corpus(folder=tmp_path)


def test_windows_overlap_by_what_the_stride_leaves() -> None:
    windows = Windows(torch.arange(20, dtype=torch.uint8), length=4, stride=3)

    assert windows[1].tolist() == [3, 4, 5, 6, 7]
    assert len(windows) == 6
    assert windows[5].tolist() == [15, 16, 17, 18, 19]


def test_a_text_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs 65 bytes"):
        Windows(torch.zeros(64, dtype=torch.uint8), length=64, stride=1)


def test_a_split_loses_nothing() -> None:
    text = torch.arange(100, dtype=torch.uint8)

    assert torch.equal(torch.cat(split_corpus(text)), text)


def test_a_new_gpt_is_as_unsure_as_chance() -> None:
    torch.manual_seed(0)
    size = GPTSize(width=32, layers=2, heads=2, context=16)
    loss = GPT(size)(torch.randint(256, (4, 17)))

    assert loss.ndim == 0
    assert loss.item() == pytest.approx(5.55, abs=0.2)


def test_a_byte_is_not_seen_before_it_is_predicted() -> None:
    torch.manual_seed(0)
    model = GPT(GPTSize(width=32, layers=2, heads=2, context=16))
    one = torch.randint(256, (1, 16))
    other = one.clone()
    other[0, 8] = (other[0, 8] + 1) % 256

    before, after = model.logits(one), model.logits(other)
    assert torch.equal(before[:, :8], after[:, :8])
    assert not torch.equal(before[:, 8:], after[:, 8:])


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="heads must divide"):
        GPTSize(width=100, heads=6)


def test_the_default_has_about_ten_million_parameters() -> None:
    assert GPT().parameter_count() == pytest.approx(10.7e6, rel=0.01)
