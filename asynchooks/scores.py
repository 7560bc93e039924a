"""Which of two scores is better, and what the name of a metric says about that. Pure.

The rule of a metric is stated, or inferred from its name as MMEngine does: an exact name before a part of a name,
"greater" before "less", upper and lower case alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from asynchooks.errors import ConfigError, UnknownNameError, did_you_mean

__all__ = ["GREATER_KEYS", "LESS_KEYS", "Rule", "Rules", "improves"]

Rule: TypeAlias = Literal["greater", "less"]

GREATER_KEYS = ("acc", "top", "AR@", "auc", "precision", "mAP", "mDice", "mIoU", "mAcc", "aAcc")
LESS_KEYS = ("loss",)


def improves(rule: Rule, score: float, best: float | None) -> bool:
    """Whether a score is strictly better than the best so far; any number is better than none, NaN than nothing."""
    if math.isnan(score):
        return False
    return best is None or (score > best if rule == "greater" else score < best)


@dataclass(frozen=True, slots=True)
class Rules:
    """The arguments ``rule``, ``greater_keys`` and ``less_keys`` of a hook that compares scores, checked.

    Attributes:
        owner: class name of the hook, for messages.
        argument: its argument that names the metrics, for messages.
        rules: one for all metrics, or one for each; None where the name of the metric is to say it.
        greater: names, or parts of names, of metrics of which more is better.
        less: the same where less is better.
    """

    owner: str
    argument: str
    rules: tuple[Rule | None, ...]
    greater: tuple[str, ...]
    less: tuple[str, ...]

    @classmethod
    def checked(
        cls,
        owner: str,
        argument: str,
        rule: object = None,
        greater_keys: object = None,
        less_keys: object = None,
    ) -> Rules:
        """Check the arguments.

        Raises:
            UnknownNameError: (a KeyError) a rule that is neither 'greater' nor 'less'.
            TypeError: keys that are no strings.
        """
        rules: list[Rule | None] = []
        for each in rule if isinstance(rule, list | tuple) else (rule,):
            if each not in ("greater", "less", None):
                raise UnknownNameError(
                    f"{owner}(rule={rule!r}): a rule is 'greater', 'less' or None (inferred from the metric's "
                    f"name).{did_you_mean(str(each), ('greater', 'less'))}"
                )
            rules.append(each)
        greater = _strings(owner, "greater_keys", greater_keys, GREATER_KEYS)
        return cls(owner, argument, tuple(rules), greater, _strings(owner, "less_keys", less_keys, LESS_KEYS))

    def of(self, metrics: Sequence[str]) -> tuple[Rule, ...]:
        """Return the rule of each metric.

        Raises:
            ConfigError: as many rules as metrics, or one for all, are needed; or no rule can be inferred.
        """
        if len(self.rules) not in (1, len(metrics)):
            raise ConfigError(
                f"{self.owner}: {len(self.rules)} rules for {len(metrics)} metrics in {self.argument}; give one "
                f"rule for all, or one for each."
            )
        rules = self.rules if len(self.rules) == len(metrics) else self.rules * len(metrics)
        return tuple(rule or self.infer(metric) for metric, rule in zip(metrics, rules, strict=True))

    def infer(self, metric: str) -> Rule:
        """Return the rule that a metric's name suggests.

        Raises:
            ConfigError: it suggests none.
        """
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
            f"{self.owner}({self.argument}={metric!r}): the name does not say whether more or less is better. Give "
            f"rule='greater' or rule='less'."
        )


def _strings(owner: str, argument: str, value: object, default: tuple[str, ...]) -> tuple[str, ...]:
    if value is None:
        return default
    strings = (value,) if isinstance(value, str) else value
    if not isinstance(strings, list | tuple | set | frozenset) or not all(
        isinstance(s, str) for s in strings
    ):
        raise TypeError(f"{owner}({argument}={value!r}): give a string or a list of strings.")
    return tuple(strings)
