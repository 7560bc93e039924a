"""The averaged weights serve evaluation and deployment, never training, and survive an interruption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from asynchooks.checkpoint import restore
from asynchooks.errors import ConfigError, ForeignCheckpointError, UnknownNameError, UnknownOptionError
from asynchooks.execution import Effects, Hook, HookExecutor
from asynchooks.hooks import CheckpointHook, EMAHook
from asynchooks.optim import ExponentialMovingAverage
from asynchooks.runner import Runner, TrainState
from asynchooks.testing import late_copies

Weights = dict[str, Tensor]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))

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

    def before_val_epoch(self, runner: Any) -> None:
        self.val.append(weights(runner.model))


def weights(model: nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_same(one: Weights, other: Weights) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def loader() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(2)
    data = TensorDataset(torch.randn(12, 4, generator=generator), torch.arange(12) % 2)
    return DataLoader(data, batch_size=3, shuffle=True)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Runner]:
    def build(**changes: Any) -> Runner:
        torch.manual_seed(0)
        options: dict[str, Any] = {
            "model": Net(),
            "work_dir": tmp_path / "run",
            "train_dataloader": loader(),
            "val_dataloader": loader(),
            "train_cfg": {"by_epoch": True, "max_epochs": 3},
            "optim_wrapper": {"optimizer": {"type": "AdamW", "lr": 0.1}},
            "default_hooks": {"checkpoint": None, "logger": None, "timer": None},
            "randomness": {"seed": 7},
        }
        return Runner(**{**options, **changes})

    return build


def averages_of(steps: list[Weights], **options: Any) -> list[Weights]:
    """Average by hand what the weights were after each step."""
    net = Net()
    net.load_state_dict(steps[0])
    average = ExponentialMovingAverage(net, **options)
    found = []
    for step in steps:
        net.load_state_dict(step)
        average.update_parameters(net)
        found.append(weights(average.module))
    return found


def test_validations_run_with_the_average_and_training_never_does(make: Callable[..., Runner]) -> None:
    plain, averaged = Weigh(), Weigh()
    make(custom_hooks=[plain]).train()

    runner = make(custom_hooks=[EMAHook(momentum=0.3), averaged])
    runner.train()

    for one, other in zip(plain.train, averaged.train, strict=True):
        assert_same(one, other)
    expected = averages_of(plain.train, momentum=0.3)
    for index, seen in enumerate(averaged.val):
        assert_same(seen, expected[4 * index + 3])
    assert_same(weights(runner.model), plain.train[-1])


def test_after_a_training_evaluations_still_run_with_its_average(make: Callable[..., Runner]) -> None:
    weigh = Weigh()
    runner = make(custom_hooks=[EMAHook(momentum=0.3), weigh])
    runner.train()

    runner.val()

    assert_same(weigh.val[-1], averages_of(weigh.train, momentum=0.3)[-1])


@pytest.mark.parametrize("update_buffers", [False, True])
def test_a_checkpoint_holds_the_average_as_its_weights(
    make: Callable[..., Runner], tmp_path: Path, *, update_buffers: bool
) -> None:
    weigh = Weigh()
    ema = EMAHook(momentum=0.3, update_buffers=update_buffers)
    save = CheckpointHook(interval=2, by_epoch=False, out_dir=tmp_path)
    make(custom_hooks=[ema, weigh, save]).train()

    for step in (2, 6, 12):
        saved = restore(tmp_path / "run" / f"iter_{step}.pth")
        raw = {k.removeprefix("module."): v for k, v in saved["ema_state_dict"].items() if k != "steps"}
        expected = averages_of(weigh.train[:step], momentum=0.3, update_buffers=update_buffers)
        assert_same(saved["state_dict"], expected[-1])
        assert_same(raw, weigh.train[step - 1])
        assert saved["ema_state_dict"]["steps"] == step


@pytest.mark.parametrize("by_epoch", [True, False])
def test_async_runs_leave_the_files_of_sync_runs(
    make: Callable[..., Runner], tmp_path: Path, *, by_epoch: bool
) -> None:
    found = []
    for mode in ("sync", "async"):
        folder = tmp_path / mode
        length = {"max_epochs": 3} if by_epoch else {"max_iters": 9, "val_interval": 2}
        save = CheckpointHook(interval=1, by_epoch=by_epoch, save_best="loss", rule="less", out_dir=folder)
        runner = make(
            custom_hooks=[EMAHook(momentum=0.3), save], train_cfg={"by_epoch": by_epoch, **length}, mode=mode
        )
        with late_copies():
            runner.train()
        found.append({path.name: restore(path) for path in sorted((folder / "run").glob("*.pth"))})

    assert found[0].keys() == found[1].keys()
    assert any(name.startswith("best_loss") for name in found[0])
    for name, saved in found[0].items():
        assert_same(saved["state_dict"], found[1][name]["state_dict"])
        assert_same(saved["ema_state_dict"], found[1][name]["ema_state_dict"])


@pytest.mark.parametrize(
    "begin", [{}, {"begin_iter": 6}, {"begin_epoch": 2}], ids=["at_once", "iter", "epoch"]
)
@pytest.mark.parametrize("by_epoch", [True, False])
def test_a_resumed_run_continues_bit_by_bit(
    make: Callable[..., Runner], tmp_path: Path, begin: dict[str, int], *, by_epoch: bool
) -> None:
    if "begin_epoch" in begin and not by_epoch:
        begin = {"begin_iter": 3}
    length = {"max_epochs": 3} if by_epoch else {"max_iters": 12, "val_interval": 5}
    options = {"train_cfg": {"by_epoch": by_epoch, **length}}
    through = Weigh()
    ema = {"type": "EMAHook", "ema_type": "MomentumAnnealingEMA", "gamma": 4, **begin}
    save = CheckpointHook(interval=1, by_epoch=False, out_dir=tmp_path)
    whole = make(custom_hooks=[ema, through, save], **options)
    whole.train()

    for step in (2, 5, 9):
        again = Weigh()
        resumed = make(custom_hooks=[ema, again], resume=tmp_path / "run" / f"iter_{step}.pth", **options)
        resumed.train()

        for one, other in zip(again.train, through.train[step:], strict=True):
            assert_same(one, other)
        for one, other in zip(again.val, through.val[-len(again.val) :], strict=True):
            assert_same(one, other)
        average = next(hook for hook in resumed.hooks if isinstance(hook, EMAHook)).ema_model
        expected = next(hook for hook in whole.hooks if isinstance(hook, EMAHook)).ema_model
        assert_same(average.state_dict(), expected.state_dict())


def test_until_it_begins_the_average_is_the_weights(make: Callable[..., Runner]) -> None:
    weigh = Weigh()
    make(custom_hooks=[EMAHook(momentum=0.3, begin_epoch=2), weigh]).train()

    assert_same(weigh.val[0], weigh.train[3])
    assert_same(weigh.val[1], averages_of(weigh.train[4:8], momentum=0.3)[-1])


def test_a_run_that_starts_from_a_checkpoint_starts_with_its_average(
    make: Callable[..., Runner], tmp_path: Path
) -> None:
    save = CheckpointHook(interval=3, out_dir=tmp_path)
    make(custom_hooks=[EMAHook(momentum=0.3), save]).train()
    saved = restore(tmp_path / "run" / "epoch_3.pth")
    ema, weigh = EMAHook(momentum=0.3), Weigh()

    runner = make(custom_hooks=[ema, weigh], load_from=tmp_path / "run" / "epoch_3.pth")
    runner.val()

    assert_same(weigh.val[0], saved["state_dict"])
    assert_same(weights(runner.model), saved["state_dict"])
    assert ema.ema_model.steps == 0


def test_a_failed_validation_does_not_leave_the_average_in_training(make: Callable[..., Runner]) -> None:
    class Fail(Hook):
        effects = Effects()
        is_on = True
        seen: Weights | None = None

        def after_val_iter(
            self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> None:
            if self.is_on:
                raise RuntimeError("no metrics today")

        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            if self.seen is None and not self.is_on:
                self.seen = weights(runner.model)

    fail, weigh = Fail(), Weigh()
    runner = make(custom_hooks=[EMAHook(momentum=0.3), fail, weigh])
    with pytest.raises(RuntimeError, match="no metrics"):
        runner.train()

    fail.is_on = False
    runner.train()

    assert fail.seen is not None
    assert_same(fail.seen, weigh.train[3])


def test_a_save_during_a_validation_holds_the_average_too(
    make: Callable[..., Runner], tmp_path: Path
) -> None:
    class Save(Hook):
        effects = Effects()

        def before_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            runner.save_checkpoint(tmp_path, "during.pth")

    weigh = Weigh()
    make(custom_hooks=[EMAHook(momentum=0.3), weigh, Save()]).train()

    saved = restore(tmp_path / "during.pth")
    assert_same(saved["state_dict"], weigh.val[-1])
    assert torch.equal(saved["ema_state_dict"]["module.body.0.weight"], weigh.train[-1]["body.0.weight"])


def test_a_loop_of_ones_own_resumes_with_its_average(tmp_path: Path) -> None:
    def state() -> TrainState:
        torch.manual_seed(1)
        model = nn.Linear(3, 1)
        return TrainState(model, torch.optim.SGD(model.parameters(), lr=0.1), work_dir=tmp_path)

    def train(run: TrainState, executor: HookExecutor, until: int) -> None:
        while run.iter < until:
            torch.manual_seed(run.iter)
            run.optim_wrapper.update_params(run.model(torch.randn(4, 3)).square().mean())
            executor.fire("after_train_iter", run, batch_idx=run.iter)

    def hooks() -> list[Hook]:
        return [EMAHook(momentum=0.3), CheckpointHook(interval=2, by_epoch=False, out_dir=tmp_path)]

    whole, again = state(), state()
    with HookExecutor(hooks()) as executor:
        train(whole, executor, 4)
    with HookExecutor(hooks()[:1]) as executor:
        again.resume(next(tmp_path.rglob("iter_2.pth")))
        train(again, executor, 4)
        average = executor.hooks[0].ema_model.module.weight  # type: ignore[attr-defined]

    saved = restore(next(tmp_path.rglob("iter_4.pth")))
    assert torch.equal(whole.model.weight, again.model.weight)  # type: ignore[arg-type]
    assert torch.equal(saved["state_dict"]["weight"], average)


def test_a_strange_average_is_refused(make: Callable[..., Runner], tmp_path: Path) -> None:
    torch.save({"state_dict": {"body.0.weight": torch.zeros(9, 9)}, "meta": {}}, tmp_path / "other.pth")

    runner = make(custom_hooks=[EMAHook()], load_from=tmp_path / "other.pth")

    with pytest.raises(ForeignCheckpointError, match="average does not fit"):
        runner.val()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"begin_iter": 1, "begin_epoch": 1}, ConfigError, "not both"),
        ({"begin_iter": -1}, ConfigError, "begin_iter is an int of at least 0, not -1"),
        (
            {"ema_type": "ExponentialMovingAvarage"},
            UnknownNameError,
            "Did you mean 'ExponentialMovingAverage'",
        ),
        ({"momentun": 0.1}, UnknownOptionError, "Did you mean 'momentum'"),
        ({"momentum": 1.5}, ConfigError, "momentum lies between 0 and 1, not 1.5"),
        ({"ema_type": "ExpMomentumEMA", "gamma": 0}, ConfigError, "gamma is a number above 0"),
        ({"interval": 0}, ConfigError, "interval is an int of at least 1"),
    ],
)
def test_wrong_options_are_refused_at_construction(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        EMAHook(**options)


@pytest.mark.parametrize("options", [{"begin_iter": 13}, {"begin_epoch": 4}])
def test_an_average_that_begins_after_the_end_is_refused(
    make: Callable[..., Runner], options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="lies after the end of the training"):
        make(custom_hooks=[EMAHook(**options)]).train()
