from __future__ import annotations

import pytest
import torch

from asynchooks._cli.demo._equality import compare_tensors


def state(value: float = 1.0) -> dict[str, object]:
    return {"state_dict": {"w": torch.tensor([value, 2.0])}, "optimizer": {"state": {0: [torch.ones(3)]}}}


def test_equal_states_have_no_differences() -> None:
    comparison = compare_tensors(state(), state())

    assert (comparison.tensors, comparison.nbytes, comparison.differences) == (2, 20, ())


def test_nan_equals_itself() -> None:
    assert compare_tensors(state(float("nan")), state(float("nan"))).differences == ()


@pytest.mark.parametrize("value", [torch.nextafter(torch.tensor(1.0), torch.tensor(2.0)).item(), -1.0])
def test_a_single_bit_is_a_difference_and_has_a_path(value: float) -> None:
    assert compare_tensors(state(), state(value)).differences == ("['state_dict']['w']",)


def test_zero_and_minus_zero_differ() -> None:
    assert compare_tensors(state(0.0), state(-0.0)).differences


def test_a_missing_tensor_is_a_difference() -> None:
    assert compare_tensors(state(), {"state_dict": {"w": torch.tensor([1.0, 2.0])}}).differences == (
        "['optimizer']['state'][0][0]",
    )


def test_another_dtype_is_a_difference() -> None:
    assert compare_tensors([torch.ones(2)], [torch.ones(2, dtype=torch.float64)]).differences == ("[0]",)
