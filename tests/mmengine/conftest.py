"""Runs one configuration through MMEngine's own Runner and through ours, in one process, and observes both.

Both get the same first weights, the same batches in the same order and the same random numbers, so that what a run
computes can be compared bit by bit. What is observed is observed by one hook that both runners call.
"""

from __future__ import annotations

import copy
import itertools
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MMEngine's own, on import
    import mmengine.hooks
    import mmengine.runner
    from mmengine.evaluator import Evaluator
    from mmengine.logging import MMLogger

import asynchooks.hooks
import asynchooks.runner
from asynchooks.execution import Effects, Hook

_RUNS = itertools.count()


class Net(nn.Module):
    """A model with both kinds of state that training changes in forward: BatchNorm's, and the random stream's."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.head(self.body(inputs))
        return scores

    def train_step(self, data: Sequence[Tensor], optim_wrapper: Any) -> dict[str, Tensor]:
        with optim_wrapper.optim_context(self):
            loss = nn.functional.cross_entropy(self(data[0]), data[1])
        optim_wrapper.update_params(loss)
        return {"loss": loss.detach()}

    def val_step(self, data: Sequence[Tensor]) -> list[Tensor]:
        return list(self(data[0]))

    test_step = val_step


class Loss:
    """A real metric in MMEngine's protocol: the mean loss of a validation."""

    def __init__(self) -> None:
        self.dataset_meta: Any = None
        self._losses: list[float] = []

    def process(self, data_batch: Any, data_samples: Sequence[Tensor]) -> None:
        self._losses.append(
            float(nn.functional.cross_entropy(torch.stack(list(data_samples)), data_batch[1]))
        )

    def evaluate(self, size: int) -> dict[str, float]:
        values, self._losses = self._losses, []
        return {"nll": sum(values) / len(values)}


class Scripted:
    """A metric in MMEngine's protocol whose results are known beforehand, one dict for each validation."""

    def __init__(self, results: Sequence[Mapping[str, float]]) -> None:
        self.dataset_meta: Any = None
        self._results = iter(results)

    def process(self, data_batch: Any, data_samples: Any) -> None:
        pass

    def evaluate(self, size: int) -> dict[str, float]:
        return dict(next(self._results))


@dataclass
class Observed:
    """What a run did, and what it left behind.

    Attributes:
        rates, momenta, decays: per iteration, one number for each parameter group, as the iteration runs with them.
        losses: per iteration.
        points: the points after which a counter may differ, with epoch and iteration.
        metrics: per validation.
        served: per validation, the weights and buffers that it ran with.
        weights: at the end.
        files: checkpoints by name, loaded.
        lines: what was logged as JSON, without times.
        runner: the runner itself.
    """

    rates: list[list[float]] = field(default_factory=list)
    momenta: list[list[float]] = field(default_factory=list)
    decays: list[list[float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    points: list[tuple[str, int, int]] = field(default_factory=list)
    metrics: list[dict[str, float]] = field(default_factory=list)
    served: list[dict[str, Tensor]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)
    runner: Any = None


class SideBySide(Protocol):
    """Runs a configuration through MMEngine and through ours, in this order."""

    def __call__(self, **options: Any) -> tuple[Observed, Observed]: ...


class _Observer:
    """Writes down what happens. Its base is the hook class of the runner that calls it."""

    priority: Any = "LOWEST"
    effects: Any = Effects()

    def __init__(self, seen: Observed) -> None:
        self.seen = seen

    def before_train(self, runner: Any) -> None:
        torch.manual_seed(11)  # whatever construction drew, the training draws the same
        self._note("before_train", runner)

    def before_train_epoch(self, runner: Any) -> None:
        self._note("before_train_epoch", runner)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self._note(f"before_train_iter {batch_idx}", runner)
        self.seen.rates.append(_values(runner.optim_wrapper.get_lr()))
        self.seen.momenta.append(_values(runner.optim_wrapper.get_momentum()))
        self.seen.decays.append([group["weight_decay"] for group in runner.optim_wrapper.param_groups])

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self._note(f"after_train_iter {batch_idx}", runner)
        self.seen.losses.append(float(outputs["loss"]))

    def after_train_epoch(self, runner: Any) -> None:
        self._note("after_train_epoch", runner)

    def before_val_epoch(self, runner: Any) -> None:
        self._note("before_val_epoch", runner)
        self.seen.served.append(_copied(runner.model))

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
        self._note("after_val_epoch", runner)
        self.seen.metrics.append(dict(metrics))

    def after_train(self, runner: Any) -> None:
        self._note("after_train", runner)

    def _note(self, point: str, runner: Any) -> None:
        self.seen.points.append((point, runner.epoch, runner.iter))


class _TheirObserver(_Observer, mmengine.hooks.Hook):  # type: ignore[misc]
    pass


class _OurObserver(_Observer, Hook):
    pass


class _TheirRunner(mmengine.runner.Runner):  # type: ignore[misc]
    def _log_env(self, env_cfg: Any) -> None:
        """Leave out what only describes the machine, and asks other programs, for a second or two."""


def _values(by_name: Mapping[str, Any]) -> list[float]:
    return [float(value) for values in by_name.values() for value in values]


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _loader(samples: int, batch_size: int, *, shuffle: bool, seed: int) -> DataLoader[Any]:
    """Return a loader with a generator of its own, so that when it starts does not move the global one."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, 6, generator=generator)
    targets = torch.randint(0, 3, (samples,), generator=generator)
    data = TensorDataset(inputs, targets)
    return DataLoader(data, batch_size=batch_size, shuffle=shuffle, generator=generator)


def _arguments(options: dict[str, Any], work_dir: Path, observer: Any) -> dict[str, Any]:
    """Return the arguments that both runners take, with objects of this run alone."""
    torch.manual_seed(3)
    given = {"samples": 22, "batch_size": 4, "shuffle": True, "model": Net, **options}
    samples, batch_size, shuffle = (given.pop(name) for name in ("samples", "batch_size", "shuffle"))
    metric = given.pop("metric", None)
    arguments: dict[str, Any] = {
        "work_dir": str(work_dir),
        "train_dataloader": _loader(samples, batch_size, shuffle=shuffle, seed=1),
        "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
        "train_cfg": {"by_epoch": True, "max_epochs": 3},
        "randomness": {"seed": 5},
        **copy.deepcopy({name: value for name, value in given.items() if name != "model"}),
        "model": given["model"](),
        "default_hooks": {"logger": None, "checkpoint": None, **given.get("default_hooks", {})},
        "custom_hooks": [*copy.deepcopy(given.get("custom_hooks", [])), observer],
    }
    if metric is not None:
        arguments["val_dataloader"] = _loader(8, 4, shuffle=False, seed=2)
        arguments["val_cfg"] = {}
        arguments["val_evaluator"] = metric()
    return arguments


def _run_theirs(options: dict[str, Any], work_dir: Path) -> Observed:
    seen = Observed()
    arguments = _arguments(options, work_dir, _TheirObserver(seen))
    if "val_evaluator" in arguments:
        arguments["val_evaluator"] = _evaluator(arguments["val_evaluator"])
    runner = _TheirRunner(**arguments, experiment_name=f"side_by_side_{next(_RUNS)}", log_level="CRITICAL")
    try:
        runner.train()
    finally:
        for handler in runner.logger.handlers:
            handler.close()
    lines = runner.visualizer.get_backend("LocalVisBackend")._scalar_save_file
    return _left_behind(seen, runner, work_dir, Path(lines))


def _run_ours(options: dict[str, Any], work_dir: Path) -> Observed:
    seen = Observed()
    runner = asynchooks.runner.Runner(
        **_arguments(options, work_dir, _OurObserver(seen)), log_level="CRITICAL"
    )
    runner.train()
    lines = next(iter(sorted(Path(str(runner.log_dir)).rglob("*.json"), reverse=True)), work_dir / "none")
    return _left_behind(seen, runner, work_dir, lines)


def _evaluator(metric: Any) -> Evaluator:
    """Return MMEngine's evaluator around a metric that is none of its classes."""
    evaluator = Evaluator([])
    evaluator.metrics = [metric]
    return evaluator


def _left_behind(seen: Observed, runner: Any, work_dir: Path, lines: Path) -> Observed:
    seen.runner = runner
    seen.weights = _copied(runner.model)
    for path in sorted(work_dir.rglob("*.pth")):
        seen.files[path.name] = torch.load(path, weights_only=False)
    for line in lines.read_text().splitlines() if lines.exists() else ():
        seen.lines.append(
            {k: v for k, v in json.loads(line).items() if k.rpartition("/")[2] not in ("time", "data_time")}
        )
    return seen


@pytest.fixture
def side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SideBySide]:
    """Return a function that runs one configuration through both runners.

    Beside the arguments of a Runner it takes ``samples``, ``batch_size`` and ``shuffle`` of the training data,
    ``model`` (a function that makes one) and ``metric`` (the same; it asks for validations).
    """

    # Between two passes over the data their iteration-based loop sleeps two seconds.
    monkeypatch.setattr(mmengine.runner.loops, "time", SimpleNamespace(sleep=lambda _: None))

    def run(**options: Any) -> tuple[Observed, Observed]:
        number = next(_RUNS)
        theirs = _run_theirs(options, tmp_path / f"mmengine_{number}")
        ours = _run_ours(options, tmp_path / f"asynchooks_{number}")
        return theirs, ours

    yield run
    MMLogger._instance_dict.clear()
    logging.getLogger("mmengine").handlers.clear()


@pytest.fixture
def loss_metric() -> type[Loss]:
    """A real metric."""
    return Loss


@pytest.fixture
def scripted() -> Callable[[Sequence[Mapping[str, float]]], Callable[[], Scripted]]:
    """Return a function that makes a metric, to be given as ``metric``, from the results of all validations."""
    return lambda results: lambda: Scripted(results)


@pytest.fixture
def assert_same_training() -> Callable[[Observed, Observed], None]:
    """Compare what two runs computed, bit by bit."""

    def check(theirs: Observed, ours: Observed) -> None:
        assert ours.points == theirs.points
        assert ours.rates == theirs.rates
        assert ours.momenta == theirs.momenta
        assert ours.decays == theirs.decays
        assert ours.losses == theirs.losses
        assert len(theirs.losses) > 1
        assert ours.metrics == theirs.metrics
        assert_same_tensors(ours.weights, theirs.weights)
        for mine, other in zip(ours.served, theirs.served, strict=True):
            assert_same_tensors(mine, other)

    return check


def assert_same_tensors(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
