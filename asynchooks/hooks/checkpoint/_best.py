"""What "best" means: which metric, its names in the message hub, which score beats the one before. Pure.

Decides nothing about files. Which way is better is the rule of `asynchooks.scores`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asynchooks.errors import UnknownNameError, did_you_mean
from asynchooks.scores import Rule, Rules, improves

__all__ = ["AUTO", "Best", "Improvement", "bests_of", "improvements", "plain_numbers"]

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Best:
    """One metric whose best checkpoint is kept.

    Attributes:
        metric: key in the metrics of a validation.
        rule: which way is better.
        alone: whether it is the only one, which decides the names in the message hub.
    """

    metric: str
    rule: Rule
    alone: bool

    @property
    def score_key(self) -> str:
        """Name of the best score in the message hub."""
        return "best_score" if self.alone else f"best_score_{self.metric}"

    @property
    def path_key(self) -> str:
        """Name of the best checkpoint's address in the message hub."""
        return "best_ckpt" if self.alone else f"best_ckpt_{self.metric}"

    @property
    def prefix(self) -> str:
        """First part of its checkpoints' names."""
        return f"best_{self.metric.replace('/', '_')}_"

    def improves(self, score: float, best: float | None) -> bool:
        """Whether ``score`` is strictly better than ``best``; any number is better than none."""
        return improves(self.rule, score, best)


@dataclass(frozen=True, slots=True)
class Improvement:
    """A metric that has just become better."""

    best: Best
    score: float


def bests_of(rules: Rules, metrics: Sequence[str]) -> tuple[Best, ...]:
    """Return what "best" means for each metric.

    Raises:
        ConfigError: as many rules as metrics, or one for all, are needed; or no rule can be inferred.
    """
    alone = len(metrics) == 1
    return tuple(Best(m, rule, alone) for m, rule in zip(metrics, rules.of(metrics), strict=True))


def improvements(
    bests: Sequence[Best], metrics: Mapping[str, Any], scores: Mapping[str, float | None]
) -> tuple[list[Improvement], list[str]]:
    """Return what has become better, and remarks on metrics that could not be judged.

    A metric that is None is no result. With several metrics, one may be missing from a validation.

    Args:
        bests: what is looked for.
        metrics: a validation's result.
        scores: the best score so far of each metric.

    Raises:
        UnknownNameError: (a KeyError) none of the metrics is in the result.
        TypeError: a metric that is no number.
    """
    better: list[Improvement] = []
    remarks: list[str] = []
    missing: list[str] = []
    for best in bests:
        if best.metric not in metrics:
            missing.append(best.metric)
            continue
        score = _number(best.metric, metrics[best.metric])
        if score is None or math.isnan(score):
            remarks.append(f"{best.metric} is {metrics[best.metric]}, which is no score")
        elif best.improves(score, scores.get(best.metric)):
            better.append(Improvement(best, score))
    if missing and len(missing) == len(bests):
        raise UnknownNameError(
            f"CheckpointHook(save_best={missing[0]!r}): this validation has no such metric."
            f"{did_you_mean(missing[0], metrics)} It has {', '.join(metrics)}."
        )
    return better, remarks + [f"{metric} is not among this validation's metrics" for metric in missing]


def plain_numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return those metrics that are numbers, as numbers."""
    numbers: dict[str, float] = {}
    for name, value in metrics.items():
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor with several elements
            continue
    return numbers


def _number(metric: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"CheckpointHook(save_best={metric!r}): a score must be a number, not {type(value).__name__}."
        ) from None
