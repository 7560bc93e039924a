"""Accumulation on several ranks, mixed precision, and several optimizers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from asynchooks.errors import ConfigError, UnknownNameError, UnknownOptionError
from asynchooks.optim import (
    AmpOptimWrapper,
    OptimWrapper,
    OptimWrapperDict,
    build_optim_wrapper,
)


class Counting(nn.Linear):
    """Has DistributedDataParallel's `no_sync`, and counts the forward passes outside of it."""

    def __init__(self) -> None:
        super().__init__(3, 1)
        self.synced: list[bool] = []
        self._syncs = True

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        self._syncs = False
        yield
        self._syncs = True

    def forward(self, inputs: Tensor) -> Tensor:
        self.synced.append(self._syncs)
        return super().forward(inputs)


class Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types there
    """Notes every read of a tensor's value by the host, which waits for the device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def train(model: nn.Module, wrapper: Any, steps: int, *, seed: int = 3) -> list[float]:
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(steps):
        with wrapper.optim_context(model):
            loss = model(torch.randn(4, 3, generator=generator)).square().mean()
        losses.append(loss.item())
        wrapper.update_params(loss)
    return losses


@pytest.fixture
def model() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def amp(model: nn.Module, **options: Any) -> AmpOptimWrapper:
    cfg = {"type": "AmpOptimWrapper", "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}, **options}
    wrapper: AmpOptimWrapper = build_optim_wrapper(model, cfg)
    return wrapper


def test_ranks_exchange_gradients_only_where_a_step_follows() -> None:
    model = Counting()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), accumulative_counts=3)
    wrapper.initialize_count_status(model, 0, 7)

    train(model, wrapper, 7)

    assert model.synced == [False, False, True, False, False, True, True]
    assert wrapper.inner_count == 7


def test_a_step_with_clipping_reads_nothing_from_the_device(model: nn.Linear) -> None:
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), clip_grad={"max_norm": 0.1})
    loss = model(torch.ones(1, 3)).square().sum()

    with Reads() as reads:
        wrapper.update_params(loss)

    assert wrapper.take_grad_norm() is not None
    assert not reads.found


def test_batch_norm_with_accumulated_gradients_is_worth_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2))
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), accumulative_counts=2)

    wrapper.initialize_count_status(model, 0, 8)

    assert "BatchNorm layers see each batch alone" in caplog.text


def test_a_start_in_the_middle_of_a_group_is_worth_a_warning(
    model: nn.Linear, caplog: pytest.LogCaptureFixture
) -> None:
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), accumulative_counts=4)

    wrapper.initialize_count_status(model, 6, 8)
    assert "starts at loss 3 of a group of 4, without the gradients" in caplog.text

    caplog.clear()
    model(torch.ones(1, 3)).sum().backward()
    wrapper.initialize_count_status(model, 6, 8)
    assert not caplog.text


def test_the_base_settings_are_saved_and_a_bare_optimizers_state_is_taken(model: nn.Linear) -> None:
    def build() -> OptimWrapper:
        groups: list[dict[str, Any]] = [{"params": [model.weight], "lr": 0.5}, {"params": [model.bias]}]
        return OptimWrapper(torch.optim.SGD(groups, lr=0.1))

    first, second = build(), build()
    first.param_groups[-1]["lr"] = 0.03

    second.load_state_dict(first.state_dict())
    assert second.get_lr() == {"base_lr": [0.03], "lr": [0.5, 0.1]}

    second.load_state_dict(build().optimizer.state_dict())
    assert second.get_lr()["base_lr"] == [0.03]


@pytest.mark.parametrize("dtype", ["bfloat16", "fp16", torch.bfloat16, None])
def test_mixed_precision_casts_the_forward_pass_and_trains(model: nn.Linear, dtype: Any) -> None:
    wrapper = amp(model, dtype=dtype)
    with wrapper.optim_context(model):
        cast = model(torch.ones(1, 3)).dtype

    losses = train(model, wrapper, 20)

    assert cast == (torch.float16 if dtype == "fp16" else torch.bfloat16)
    assert losses[-1] < losses[0] / 2
    assert model.weight.dtype == torch.float32


def test_without_casting_scaled_losses_make_the_steps_of_unscaled_ones(model: nn.Linear) -> None:
    twin = nn.Linear(3, 1)
    twin.load_state_dict(model.state_dict())
    options = {"accumulative_counts": 2, "clip_grad": {"max_norm": 0.3}}
    scaled = amp(model, dtype=torch.float32, loss_scale=1024.0, **options)
    plain = OptimWrapper(torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9), **options)  # type: ignore[arg-type]

    with torch.autocast("cpu", enabled=False):
        for seed in range(3):
            for wrapper, net in ((scaled, model), (plain, twin)):
                generator = torch.Generator().manual_seed(seed)
                for _ in range(2):
                    wrapper.update_params(net(torch.randn(4, 3, generator=generator)).square().mean())
            norms = (scaled.take_grad_norm(), plain.take_grad_norm())
            assert norms[0] is not None
            torch.testing.assert_close(*norms)

    torch.testing.assert_close(model.weight, twin.weight)
    assert scaled.loss_scaler.get_scale() == 1024.0


def test_an_overflow_skips_the_step_and_halves_the_scale(model: nn.Linear) -> None:
    wrapper = amp(model, dtype="bfloat16", loss_scale={"init_scale": 8.0})
    before = model.weight.detach().clone()

    wrapper.update_params(model(torch.full((1, 3), torch.inf)).sum())

    assert torch.equal(model.weight, before)
    assert wrapper.loss_scaler.get_scale() == 4.0


def test_a_fixed_scale_stays(model: nn.Linear) -> None:
    wrapper = amp(model, loss_scale=64)

    wrapper.update_params(model(torch.full((1, 3), torch.inf)).sum())

    assert wrapper.loss_scaler.get_scale() == 64.0


def test_the_scalers_state_is_saved_under_mmengines_key(model: nn.Linear, tmp_path: Path) -> None:
    first = amp(model, loss_scale={"init_scale": 256.0, "growth_interval": 2})
    train(model, first, 3)
    torch.save(first.state_dict(), tmp_path / "state.pth")

    second = amp(model, loss_scale={"init_scale": 256.0, "growth_interval": 2})
    state = torch.load(tmp_path / "state.pth", weights_only=True)
    second.load_state_dict(state)

    assert state["loss_scaler"]["scale"] == 512.0
    assert second.state_dict()["loss_scaler"] == first.state_dict()["loss_scaler"]
    second.load_state_dict(torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9).state_dict())
    assert second.get_lr() == {"lr": [0.3]}
    assert second.loss_scaler.get_scale() == 512.0


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"loss_scale": "dynamical"}, ConfigError, "loss_scale is 'dynamic', a number above 0"),
        ({"loss_scale": True}, ConfigError, "loss_scale is 'dynamic'"),
        ({"loss_scale": {"init_scales": 1.0}}, UnknownOptionError, "Did you mean 'init_scale'"),
        ({"dtype": "float8"}, ConfigError, "dtype is one of float16"),
        ({"clip_grad": {}}, ConfigError, "clip_grad is a dict such as"),
    ],
)
def test_wrong_options_of_mixed_precision_are_refused(
    model: nn.Linear, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        amp(model, **options)


def test_apex_is_asked_for_at_construction(model: nn.Linear) -> None:
    with pytest.raises(ConfigError, match="needs NVIDIA's apex, which is not installed here"):
        build_optim_wrapper(model, {"type": "ApexOptimWrapper", "optimizer": {"type": "SGD", "lr": 0.1}})


@pytest.fixture
def several() -> OptimWrapperDict:
    first, second = nn.Linear(2, 1), nn.Linear(1, 1)
    return OptimWrapperDict(
        generator=OptimWrapper(torch.optim.Adam(first.parameters(), lr=0.1), accumulative_counts=2),
        critic=OptimWrapper(torch.optim.SGD(second.parameters(), lr=0.2, momentum=0.5)),
    )


def test_several_optimizers_are_told_apart_by_name(several: OptimWrapperDict) -> None:
    assert several.get_lr() == {"generator.lr": [0.1], "critic.lr": [0.2]}
    assert several.get_momentum() == {"generator.momentum": [0.9], "critic.momentum": [0.5]}
    assert list(several) == list(several.keys()) == ["generator", "critic"]
    assert "critic" in several
    assert len(several) == 2
    assert several["critic"] is dict(several.items())["critic"]
    assert several.optimizer["critic"] is several["critic"].optimizer
    assert several.param_groups["critic"] is several["critic"].param_groups
    with pytest.raises(ConfigError, match="Did you mean 'critic'"):
        several["critik"]


@pytest.mark.parametrize(
    "call",
    [
        lambda several: several.update_params(torch.zeros(1)),
        lambda several: several.backward(torch.zeros(1)),
        lambda several: several.step(),
        lambda several: several.optim_context(nn.Linear(1, 1)),
    ],
)
def test_what_needs_one_optimizer_says_so(several: OptimWrapperDict, call: Callable[[Any], None]) -> None:
    with pytest.raises(
        ConfigError, match=r"call \w+\(.*\) on one of them, such as optim_wrapper\['generator'\]"
    ):
        call(several)


def test_states_of_several_optimizers_go_by_name(several: OptimWrapperDict) -> None:
    state = several.state_dict()
    state["critic"]["param_groups"][0]["lr"] = 0.7

    several.load_state_dict(state)

    assert several.get_lr()["critic.lr"] == [0.7]
    with pytest.raises(ConfigError, match="optimizers generator; here are generator, critic"):
        several.load_state_dict({"generator": state["generator"]})


def test_accumulated_gradients_of_several_optimizers_continue(several: OptimWrapperDict) -> None:
    parameter = several["generator"].param_groups[0]["params"][0]
    several["generator"].update_params(parameter.sum())
    assert several.is_accumulating
    kept = several.accumulated_grads()
    grad = parameter.grad.clone()

    several.zero_grad()
    several["generator"]._counts = 0
    several.load_accumulated_grads(kept)

    assert torch.equal(parameter.grad, grad)
    assert several["generator"].inner_count == 1
    several["generator"].update_params(parameter.sum())
    assert not several.is_accumulating


def test_the_norm_of_the_wrapper_that_clipped_last_is_taken(several: OptimWrapperDict) -> None:
    parameter = several["generator"].param_groups[0]["params"][0]
    several["generator"].clip_grad = ("norm", {"max_norm": 1.0})
    for _ in range(2):
        several["generator"].update_params(parameter.sum())

    norm = several.take_grad_norm()

    assert norm is not None
    assert norm > 0
    assert several.take_grad_norm() is None


def test_a_dict_of_built_wrappers_is_several_optimizers(model: nn.Linear, several: OptimWrapperDict) -> None:
    built = build_optim_wrapper(model, dict(several.items()))

    assert isinstance(built, OptimWrapperDict)
    assert built["critic"] is several["critic"]
    assert build_optim_wrapper(model, several) is several
    with pytest.raises(ConfigError, match="Several optimizers come as built wrappers"):
        build_optim_wrapper(model, {"a": several["critic"], "b": {"type": "SGD"}})
    with pytest.raises(ConfigError, match="holds built OptimWrappers, but a="):
        OptimWrapperDict(a={"type": "SGD"})  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="'OptimWrapper'"):
        build_optim_wrapper(model, {"type": "OptimizerWrapper", "optimizer": {"type": "SGD", "lr": 0.1}})
