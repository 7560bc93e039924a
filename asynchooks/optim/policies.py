"""Closed forms of schedules: from a first value and a position to the value there.

Pure functions of numbers, for learning rates and momenta alike. The forms are those of MMCV 1.x, MMDetection 2
(YOLOX) and MMYOLO, whose hooks of these names use them; positions and lengths are epochs or iterations, as the caller
counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from asynchooks.errors import ConfigError

__all__ = [
    "Anneal",
    "Warmup",
    "annealing",
    "annealing_cos",
    "annealing_linear",
    "cosine_restart",
    "cyclic",
    "exponential",
    "flat_cosine",
    "inverse",
    "piecewise",
    "polynomial",
    "quadratic_factor",
    "stepped",
    "warmup_factor",
]

Anneal: TypeAlias = Callable[[float, float, float], float]
Warmup: TypeAlias = Literal["constant", "linear", "exp"]


def annealing_cos(start: float, end: float, factor: float, weight: float = 1.0) -> float:
    """Go along a half cosine from ``weight * start + (1 - weight) * end`` (factor 0) to ``end`` (factor 1)."""
    return end + 0.5 * weight * (start - end) * (math.cos(math.pi * factor) + 1)


def annealing_linear(start: float, end: float, factor: float) -> float:
    """Go straight from ``start`` (factor 0) to ``end`` (factor 1)."""
    return start + (end - start) * factor


def annealing(strategy: str) -> Anneal:
    """Return the function of an ``anneal_strategy``.

    Raises:
        ConfigError: it is neither "cos" nor "linear".
    """
    if strategy not in _ANNEALINGS:
        raise ConfigError(f"anneal_strategy is 'cos' or 'linear', not {strategy!r}.")
    return _ANNEALINGS[strategy]


_ANNEALINGS: dict[str, Anneal] = {"cos": annealing_cos, "linear": annealing_linear}


def warmup_factor(warmup: str, ratio: float, position: float, length: float) -> float:
    """Return what the regular value is multiplied by during a warmup: from ``ratio`` (constantly, or up) to 1."""
    if warmup == "constant":
        return ratio
    if warmup == "linear":
        return 1 - (1 - position / length) * (1 - ratio)
    if warmup == "exp":
        return float(ratio ** (1 - position / length))
    raise ConfigError(f"warmup is 'constant', 'linear', 'exp' or None, not {warmup!r}.")


def quadratic_factor(ratio: float, position: float, length: float) -> float:
    """Return YOLOX's warmup factor, which grows with the square of the position."""
    return ratio * ((position + 1) / length) ** 2


def stepped(
    base: float, position: int, step: int | Sequence[int], gamma: float, lowest: float | None = None
) -> float:
    """Multiply by ``gamma`` every ``step``, or at each of several steps; not below ``lowest``."""
    done = position // step if isinstance(step, int) else sum(position >= each for each in step)
    value = base * (gamma**done)
    return value if lowest is None else max(value, lowest)


def exponential(base: float, position: float, gamma: float) -> float:
    """Multiply by ``gamma`` at each position."""
    return float(base * gamma**position)


def polynomial(base: float, position: float, length: float, power: float, lowest: float) -> float:
    """Decay to ``lowest`` at the end, as a power of what is left."""
    return float((base - lowest) * (1 - position / length) ** power + lowest)


def inverse(base: float, position: float, gamma: float, power: float) -> float:
    """Decay as a power of the inverse position."""
    return float(base * (1 + gamma * position) ** (-power))


def flat_cosine(base: float, target: float, position: float, length: float, start_percent: float) -> float:
    """Stay for a part of the length, then anneal along a cosine."""
    start = round(length * start_percent)
    if position < start:
        return base
    return annealing_cos(base, target, _fraction(position - start, length - start))


def cosine_restart(
    base: float, target: float, position: float, periods: Sequence[int], restart_weights: Sequence[float]
) -> float:
    """Anneal along a cosine in each period, from its weight times ``base``.

    Raises:
        ConfigError: the position lies after the last period.
    """
    begin = 0
    for period, weight in zip(periods, restart_weights, strict=True):
        if position < begin + period:
            return annealing_cos(base, target, min((position - begin) / period, 1), weight)
        begin += period
    raise ConfigError(f"The periods {list(periods)} end at {begin}, but the run is at {position}.")


def cyclic(
    base: float,
    position: int,
    length: int,
    up: int,
    target_ratio: Sequence[float],
    gamma: float,
    anneal: Anneal,
) -> float:
    """Go up to the first target ratio and down to the second, again and again.

    Args:
        base: value that the ratios are of.
        position: where, over all cycles.
        length: positions per cycle.
        up: how many of them go up.
        target_ratio: ratio at the top, ratio at the end of the cycle.
        gamma: what the distance of the top from ``base`` is multiplied by from cycle to cycle.
        anneal: how to go from one to the other.
    """
    cycle, position = divmod(position, length)
    scale = gamma**cycle
    top = 1 - scale + target_ratio[0] * scale
    if position < up:
        return anneal(base, base * top, position / up)
    return anneal(base * top, base * target_ratio[1], (position - up) / (length - up))


def piecewise(position: float, phases: Sequence[tuple[float, float, float]], anneal: Anneal) -> float:
    """Return the value in the phase that holds a position; phases are (end, first value, last value)."""
    begin = 0.0
    for end, first, last in phases:
        if position <= end:
            return anneal(first, last, _fraction(position - begin, end - begin))
        begin = end
    return phases[-1][2]


def _fraction(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 1.0  # a phase of no length is over at once
