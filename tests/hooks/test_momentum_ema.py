"""Averages that the model carries itself: MMDetection 2's hooks and MMCV's."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from asynchooks.checkpoint import restore
from asynchooks.errors import ConfigError, UnknownOptionError
from asynchooks.execution import Effects, Hook, HookExecutor
from asynchooks.hooks import CheckpointHook, ExpMomentumEMAHook, LinearMomentumEMAHook
from asynchooks.hooks.mmcv.ema import EMAHook as MmcvEMAHook
from asynchooks.registry import HOOKS, MMCV_HOOKS
from asynchooks.runner import Runner, TrainState
from asynchooks.testing import late_copies

Weights = dict[str, Tensor]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
        self.again = self.body[0]  # tied

    def forward(self, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(self.body(batch[0]), batch[1])


class Weigh(Hook):
    """Keeps the weights of training, and those that a validation runs with."""

    effects = Effects()
    changes_state = False
    priority = "VERY_LOW"

    def __init__(self) -> None:
        self.train: list[Weights] = []
        self.val: list[Weights] = []

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.train.append(weights(runner.model))

    def before_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if batch_idx == 0:
            self.val.append(weights(runner.model))


def weights(model: nn.Module) -> Weights:
    return {n: v.detach().clone() for n, v in model.state_dict().items() if not n.startswith("ema_")}


def assert_same(one: Weights, other: Weights) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def averages_of(steps: list[Weights], momentum: Callable[[int], float]) -> list[Weights]:
    """Average by hand, from the first weights of all models here."""
    torch.manual_seed(0)
    average = weights(Net())
    found = []
    for index, step in enumerate(steps):
        m = momentum(index)
        for name, value in step.items():
            if value.is_floating_point():
                average[name] = average[name] * (1 - m) + value * m
            else:
                average[name] = value
        found.append(dict(average))
    return found


def assert_near(one: Weights, other: Weights) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], msg=name)


def exp(iteration: int) -> float:
    return 0.7 * math.exp(-(1 + iteration) / 5) + 0.3


def linear(iteration: int) -> float:
    return min(0.3, (1 + iteration) / (10 + iteration))


def loader() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(2)
    data = TensorDataset(torch.randn(12, 4, generator=generator), torch.arange(12) % 2)
    return DataLoader(data, batch_size=3, shuffle=True)


LENGTHS: dict[bool, dict[str, Any]] = {
    True: {"by_epoch": True, "max_epochs": 3},
    False: {"by_epoch": False, "max_iters": 12, "val_interval": 4},
}


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Runner]:
    def build(*hooks: Any, by_epoch: bool = True, **changes: Any) -> Runner:
        torch.manual_seed(0)
        options: dict[str, Any] = {
            "model": Net(),
            "work_dir": tmp_path / "run",
            "train_dataloader": loader(),
            "val_dataloader": loader(),
            "train_cfg": LENGTHS[by_epoch],
            "optim_wrapper": {"optimizer": {"type": "AdamW", "lr": 0.1}},
            "default_hooks": {"checkpoint": None, "logger": None, "timer": None},
            "custom_hooks": list(hooks),
            "randomness": {"seed": 7},
        }
        return Runner(**{**options, **changes})

    return build


@pytest.mark.parametrize("by_epoch", [True, False])
@pytest.mark.parametrize(
    ("cfg", "momentum"),
    [
        ({"type": "ExpMomentumEMAHook", "momentum": 0.3, "total_iter": 5}, exp),
        ({"type": "mmdet.LinearMomentumEMAHook", "momentum": 0.3, "warm_up": 10}, linear),
    ],
)
def test_the_average_serves_validations_and_files_and_never_training(
    make: Callable[..., Runner], tmp_path: Path, cfg: dict[str, Any], momentum: Any, *, by_epoch: bool
) -> None:
    plain, weigh = Weigh(), Weigh()
    make(plain, by_epoch=by_epoch).train()
    save = CheckpointHook(interval=2, by_epoch=False, out_dir=tmp_path)

    runner = make(cfg, weigh, save, by_epoch=by_epoch)
    with late_copies():
        runner.train()

    for one, other in zip(plain.train, weigh.train, strict=True):
        assert_same(one, other)
    expected = averages_of(plain.train, momentum)
    assert_near(weigh.val[0], expected[3])
    assert_near(weigh.val[-1], expected[-1])
    for step in (2, 8):
        saved = restore(tmp_path / "run" / f"iter_{step}.pth")["state_dict"]
        assert_near({k: v for k, v in saved.items() if not k.startswith("ema_")}, expected[step - 1])
        assert torch.equal(saved["ema_body_2_weight"], plain.train[step - 1]["body.2.weight"])
    assert_near(weights(runner.model), expected[-1])


@pytest.mark.parametrize("by_epoch", [True, False])
def test_a_resumed_run_continues_bit_by_bit(
    make: Callable[..., Runner], tmp_path: Path, *, by_epoch: bool
) -> None:
    cfg = {"type": "ExpMomentumEMAHook", "momentum": 0.3, "total_iter": 5}
    through = Weigh()
    save = CheckpointHook(interval=1, by_epoch=False, out_dir=tmp_path)
    whole = make(cfg, through, save, CheckpointHook(interval=1, out_dir=tmp_path), by_epoch=by_epoch)
    whole.train()

    for name in ("iter_2", "iter_8", "epoch_2") if by_epoch else ("iter_2", "iter_8"):
        again = Weigh()
        resumed = make(cfg, again, by_epoch=by_epoch, resume=tmp_path / "run" / f"{name}.pth")
        resumed.train()

        for one, other in zip(reversed(again.train), reversed(through.train), strict=False):
            assert_same(one, other)
        assert_same(again.val[-1], through.val[-1])
        for key, value in whole.model.state_dict().items():
            assert torch.equal(resumed.model.state_dict()[key], value), (name, key)


def test_a_hook_that_names_its_checkpoint_continues_from_it(
    make: Callable[..., Runner], tmp_path: Path
) -> None:
    cfg = {"type": "LinearMomentumEMAHook", "momentum": 0.3}
    whole = make(cfg, CheckpointHook(interval=1, out_dir=tmp_path))
    whole.train()

    resumed = make({**cfg, "resume_from": tmp_path / "run" / "epoch_2.pth"})
    resumed.train()

    assert_same(weights(resumed.model), weights(whole.model))


def test_a_run_that_starts_from_a_checkpoint_starts_with_its_average(
    make: Callable[..., Runner], tmp_path: Path
) -> None:
    cfg = {"type": "ExpMomentumEMAHook", "momentum": 0.3, "total_iter": 5}
    make(cfg, CheckpointHook(interval=3, out_dir=tmp_path)).train()
    path = tmp_path / "run" / "epoch_3.pth"
    saved = {k: v for k, v in restore(path)["state_dict"].items() if not k.startswith("ema_")}
    weigh = Weigh()

    runner = make(cfg, weigh, load_from=path)
    runner.val()

    assert_same(weigh.val[0], saved)
    assert_same(weights(runner.model), saved)


class Evaluate(Hook):
    """Evaluates after iterations, as MMCV's EvalHook does in an iteration-based run."""

    effects = Effects()
    priority = "LOW"
    by_epoch = False

    def __init__(self) -> None:
        self.seen: dict[int, Weights] = {}

    def _should_evaluate(self, runner: Any) -> bool:
        return bool((runner.iter + 1) % 3 == 0)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if self._should_evaluate(runner):
            self.seen[runner.iter] = weights(runner.model)


class MmcvState(TrainState):
    """Has ``hooks``, as MMCV's runners."""

    hooks: list[Any]


def test_mmcvs_average_serves_evaluations_and_saves_between_iterations(tmp_path: Path) -> None:
    def train(*hooks: Any) -> MmcvState:
        torch.manual_seed(0)
        model = Net()
        state = MmcvState(model, torch.optim.SGD(model.parameters(), lr=0.1), max_iters=7, work_dir=tmp_path)
        state.hooks = list(hooks)
        torch.manual_seed(1)
        with HookExecutor(hooks) as executor:
            executor.fire("before_run", state)
            executor.fire("before_train_epoch", state)
            for index in range(7):
                executor.fire("before_train_iter", state, batch_idx=index)
                state.optim_wrapper.update_params(model((torch.randn(4, 4), torch.tensor([0, 1, 0, 1]))))
                trained.append(weights(model))
                executor.fire("after_train_iter", state, batch_idx=index)
            executor.fire("after_train_epoch", state)
        return state

    trained: list[Weights] = []
    train(Weigh())
    plain, trained = trained, []
    evaluate = Evaluate()
    saving = CheckpointHook(interval=2, by_epoch=False, out_dir=tmp_path)
    train(MmcvEMAHook(momentum=0.3, warm_up=10), evaluate, saving)

    expected = averages_of(plain, linear)
    for one, other in zip(trained, plain, strict=True):
        assert_same(one, other)
    parameters = [name for name, _ in Net().named_parameters()]
    for iteration, seen in evaluate.seen.items():
        for name in parameters:
            torch.testing.assert_close(seen[name], expected[iteration][name])
    for step in (2, 4, 6):
        saved = restore(next(tmp_path.rglob(f"iter_{step}.pth")))["state_dict"]
        for name in parameters:
            torch.testing.assert_close(saved[name], expected[step - 1][name])


def test_mmcvs_hook_updates_and_warms_up_as_mmcvs() -> None:
    hook = MmcvEMAHook(momentum=0.3, interval=2, warm_up=0)
    state = TrainState(nn.Linear(1, 1), max_iters=5)

    assert hook.momentum == pytest.approx(0.09)
    assert [hook._is_due(_at(state, i)) for i in range(4)] == [True, False, True, False]
    assert hook.get_momentum(_at(state, 0)) == pytest.approx(0.09)


def _at(state: TrainState, iteration: int) -> TrainState:
    state._iter = iteration
    return state


def test_names_belong_to_their_families() -> None:
    assert HOOKS.get("ExpMomentumEMAHook") is ExpMomentumEMAHook
    assert HOOKS.get("mmdet.LinearMomentumEMAHook") is LinearMomentumEMAHook
    assert MMCV_HOOKS.get("EMAHook") is MmcvEMAHook
    assert HOOKS.get("mmcv.EMAHook") is MmcvEMAHook
    assert HOOKS.get("EMAHook") is not MmcvEMAHook


def test_two_weights_of_one_buffer_are_refused() -> None:
    model = nn.Module()
    model.a = nn.Module()
    model.a.b_c = nn.Parameter(torch.zeros(1))
    model.a_b = nn.Module()
    model.a_b.c = nn.Parameter(torch.zeros(1))
    hook = ExpMomentumEMAHook()

    with pytest.raises(ConfigError, match="would both be called ema_a_b_c"):
        hook.before_run(TrainState(model))


@pytest.mark.parametrize(
    ("cfg", "error", "words"),
    [
        ({"type": "ExpMomentumEMAHook", "momentum": 0}, ConfigError, "momentum lies between 0 and 1, not 0"),
        ({"type": "ExpMomentumEMAHook", "total_iters": 5}, UnknownOptionError, "Did you mean 'total_iter'"),
        ({"type": "LinearMomentumEMAHook", "warm_up": -1}, ConfigError, "warm_up is an int of at least 0"),
        ({"type": "mmcv.EMAHook", "interval": 0}, ConfigError, "interval is an int of at least 1"),
    ],
)
def test_wrong_options_are_refused_at_construction(
    cfg: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        HOOKS.build(cfg)
