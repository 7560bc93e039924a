"""What "best" means: which metric, which way is better, which score beats the one before. Pure.

Decides nothing about files. The rule of a metric is stated, or inferred from its name as MMEngine does: an exact
name before a part of a name, "greater" before "less", upper and lower case alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from asynchooks.errors import ConfigError, UnknownNameError, did_you_mean

__all__ = ["AUTO", "Best", "Improvement", "Rules", "improvements", "plain_numbers"]

AUTO = "auto"
GREATER_KEYS = ("acc", "top", "AR@", "auc", "precision", "mAP", "mDice", "mIoU", "mAcc", "aAcc")
LESS_KEYS = ("loss",)

Rule: TypeAlias = Literal["greater", "less"]


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
        if math.isnan(score):
            return False
        return best is None or (score > best if self.rule == "greater" else score < best)


@dataclass(frozen=True, slots=True)
class Improvement:
    """A metric that has just become better."""

    best: Best
    score: float


@dataclass(frozen=True, slots=True)
class Rules:
    """The arguments ``rule``, ``greater_keys`` and ``less_keys`` of the checkpoint hook, checked."""

    rules: tuple[Rule | None, ...]
    greater: tuple[str, ...]
    less: tuple[str, ...]

    @classmethod
    def checked(cls, rule: object, greater_keys: object, less_keys: object) -> Rules:
        """Check the arguments.

        Raises:
            UnknownNameError: (a KeyError) a rule that is neither 'greater' nor 'less'.
            TypeError: keys that are no strings.
        """
        rules: list[Rule | None] = []
        for each in rule if isinstance(rule, list | tuple) else (rule,):
            if each not in ("greater", "less", None):
                raise UnknownNameError(
                    f"CheckpointHook(rule={rule!r}): a rule is 'greater', 'less' or None (inferred from the "
                    f"metric's name).{did_you_mean(str(each), ('greater', 'less'))}"
                )
            rules.append(each)
        return cls(
            tuple(rules),
            _strings("greater_keys", greater_keys, GREATER_KEYS),
            _strings("less_keys", less_keys, LESS_KEYS),
        )

    def apply(self, metrics: Sequence[str]) -> tuple[Best, ...]:
        """Return what "best" means for each metric.

        Raises:
            ConfigError: as many rules as metrics, or one for all, are needed; or no rule can be inferred.
        """
        if len(self.rules) not in (1, len(metrics)):
            raise ConfigError(
                f"CheckpointHook: {len(self.rules)} rules for {len(metrics)} metrics in save_best; give one "
                f"rule for all, or one for each."
            )
        rules = self.rules if len(self.rules) == len(metrics) else self.rules * len(metrics)
        return tuple(
            Best(metric, rule or self.infer(metric), alone=len(metrics) == 1)
            for metric, rule in zip(metrics, rules, strict=True)
        )

    def infer(self, metric: str) -> Rule:
        """Return the rule that a metric's name suggests."""
        name = metric.lower()
        greater = {key.lower() for key in self.greater}
        less = {key.lower() for key in self.less}
        if name in greater:
            return "greater"
        if name in less:
            return "less"
        if any(key in name for key in greater):
            return "greater"
        if any(key in name for key in less):
            return "less"
        raise ConfigError(
            f"CheckpointHook(save_best={metric!r}): the name does not say whether more or less is better. Give "
            f"rule='greater' or rule='less'."
        )


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


def _strings(argument: str, value: object, default: tuple[str, ...]) -> tuple[str, ...]:
    if value is None:
        return default
    strings = (value,) if isinstance(value, str) else value
    if not isinstance(strings, list | tuple | set | frozenset) or not all(
        isinstance(s, str) for s in strings
    ):
        raise TypeError(f"CheckpointHook({argument}={value!r}): give a string or a list of strings.")
    return tuple(strings)
