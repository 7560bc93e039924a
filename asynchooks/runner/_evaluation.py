"""What a validation measures: evaluators of several protocols, and the mean loss of plain modules.

Decides how outputs become metrics. Sums stay on the device until the end, so a validation costs one device
sync, not one per batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from asynchooks.distributed import is_distributed
from asynchooks.errors import ConfigError
from asynchooks.registry import METRICS
from asynchooks.runner._agreement import gathered, told
from asynchooks.runner._steps import losses_of

__all__ = ["Evaluation", "build_evaluators", "check_evaluators"]

logger = logging.getLogger(__name__)


class _MMEngineMetric:
    """``process(data_batch, data_samples)`` per batch, ``evaluate(size)`` at the end."""

    def __init__(self, name: str, metric: Any) -> None:
        self._name, self._metric = name, metric

    def start(self, dataset: Any) -> None:
        if hasattr(dataset, "metainfo"):
            self._metric.dataset_meta = dataset.metainfo

    def add(self, batch: Any, outputs: Any) -> None:
        self._metric.process(data_batch=batch, data_samples=outputs)

    def finish(self, size: int) -> dict[str, Any]:
        return _named(self._name, self._metric.evaluate(size))


class _TorchMetric:
    """``update(*outputs)`` per batch, ``compute()`` at the end, ``reset()`` before."""

    def __init__(self, name: str, metric: Any) -> None:
        self._name, self._metric = name, metric

    def start(self, dataset: Any) -> None:
        self._metric.reset()

    def add(self, batch: Any, outputs: Any) -> None:
        if isinstance(outputs, Mapping):
            self._metric.update(**outputs)
        elif isinstance(outputs, tuple):
            self._metric.update(*outputs)
        else:
            self._metric.update(outputs)

    def finish(self, size: int) -> dict[str, Any]:
        return _named(self._name, self._metric.compute())


class _Means:
    """Means over samples of what a function of ``(outputs, batch)`` returns for each batch."""

    def __init__(self, function: Callable[[Any, Any], Mapping[str, Any]]) -> None:
        self._function = function
        self._sums: dict[str, Any] = {}
        self._counts: dict[str, int] = {}

    def start(self, dataset: Any) -> None:
        self._sums.clear()
        self._counts.clear()

    def add(self, batch: Any, outputs: Any) -> None:
        count = _batch_size(batch)
        for name, value in self._function(outputs, batch).items():
            amount = _precise(value) * count
            self._sums[name] = self._sums[name] + amount if name in self._sums else amount
            self._counts[name] = self._counts.get(name, 0) + count

    def finish(self, size: int) -> dict[str, Any]:
        if is_distributed():
            self._add_up()
        return {name: total / self._counts[name] for name, total in self._sums.items()}

    def _add_up(self) -> None:
        """Take in the sums of all ranks, in their order, so that every rank has the same bits."""
        shares = gathered((dict(map(_read, self._sums.items())), self._counts))
        self._sums, self._counts = {}, {}
        for sums, counts in shares:
            for name, amount in sums.items():
                self._sums[name] = self._sums.get(name, 0.0) + amount
                self._counts[name] = self._counts.get(name, 0) + counts[name]


class Evaluation:
    """Collects the outputs of one validation or test and returns its metrics.

    Args:
        evaluators: what `build_evaluators` returned.
        dataset: what is evaluated, for evaluators that want its meta information.
        with_losses: whether the means of the losses in the outputs are metrics too.
    """

    def __init__(self, evaluators: list[Any], dataset: Any, *, with_losses: bool) -> None:
        self._evaluators = [
            *([_Means(lambda outputs, _: losses_of(outputs))] if with_losses else []),
            *evaluators,
        ]
        for evaluator in self._evaluators:
            evaluator.start(dataset)

    def add(self, batch: Any, outputs: Any) -> None:
        """Take one batch's outputs. Does not wait for the device."""
        for evaluator in self._evaluators:
            evaluator.add(batch, outputs)

    def finish(self, size: int) -> dict[str, Any]:
        """Return the metrics; scalar tensors become numbers here. Every rank has the first one's.

        A collective where there are ranks.

        Args:
            size: samples in the data set, or batches where it has no length.
        """
        metrics: dict[str, Any] = {}
        for evaluator in self._evaluators:
            metrics.update(evaluator.finish(size))
        return _agreed({name: _number(value) for name, value in metrics.items()})


def _agreed(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the first rank's metrics on every rank: hooks decide by them, and must decide alike."""
    if not is_distributed():
        return metrics
    first = told(metrics)
    differing = [name for name, value in metrics.items() if repr(value) != repr(first.get(name))]
    if differing:
        logger.warning(
            "metrics differ from the first rank's, which counts: %s. A metric must collect its results over "
            "the ranks, as MMEngine's and torchmetrics' do.",
            ", ".join(differing),
        )
    return first


def check_evaluators(cfg: Any, *, scope: str | None = None) -> None:
    """Raise if something in an evaluator configuration cannot be used, without building a metric."""
    for _, item in _items(cfg):
        if isinstance(item, Mapping):
            METRICS.check(item, scope=scope)
        else:
            _adapter("", item)


def build_evaluators(cfg: Any, *, scope: str | None = None) -> list[Any]:
    """Return the evaluators that an object, a dict, a list of them, or a dict of names to them describes."""
    return [
        _adapter(name, METRICS.build(item, scope=scope) if isinstance(item, Mapping) else item)
        for name, item in _items(cfg)
    ]


def _items(cfg: Any) -> list[tuple[str, Any]]:
    if cfg is None:
        return []
    if isinstance(cfg, list | tuple):
        return [("", item) for item in cfg]
    if isinstance(cfg, Mapping) and "type" not in cfg:
        return [(str(name), item) for name, item in cfg.items()]
    return [("", cfg)]


def _adapter(name: str, item: Any) -> Any:
    if _has(item, "process", "evaluate"):
        return _MMEngineMetric(name, item)
    if _has(item, "update", "compute", "reset"):
        return _TorchMetric(name or type(item).__name__, item)
    if callable(item) and not isinstance(item, type):
        return _Means(item)
    raise ConfigError(
        f"An evaluator has process/evaluate (MMEngine) or update/compute/reset (torchmetrics), or is a function of "
        f"(outputs, batch) that returns a dict; {item!r} is neither."
    )


def _has(item: Any, *methods: str) -> bool:
    return all(callable(getattr(item, method, None)) for method in methods)


def _named(name: str, result: Any) -> dict[str, Any]:
    if isinstance(result, Mapping):
        return {str(key): value for key, value in result.items()}
    return {name or "metric": result}


def _batch_size(batch: Any) -> int:
    """Return the samples in a batch: the first dimension of its first tensor; 1 where there is none."""
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.ndim else 1
    values = (
        batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    )
    for value in values:
        if isinstance(value, Tensor | Mapping | list | tuple):
            return _batch_size(value)
    return len(values) if isinstance(batch, list) and values else 1


def _precise(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return float(value)
    value = value.detach()
    return value if value.device.type == "mps" else value.to(torch.float64)


def _read(item: tuple[str, Any]) -> tuple[str, Any]:
    name, value = item
    return name, value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
