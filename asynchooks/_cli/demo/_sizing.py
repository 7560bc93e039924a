"""How long to train and how often to save. Pure.

Decides the cadence: a store of a given speed needs some seconds for one save, and an asynchronous run can only
hide a save that is done before the next one. So the interval follows from the store's speed, the bytes of a save
and the machine's own speed, which is measured first; all modes then use the same numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["FEWEST_STEPS", "Sizing", "choose_sizing"]

_SAVES = 4
_HEADROOM = 1.6  # of the cadence over a save's time at the store
_SHORTEST_CADENCE_S = 3.0
FEWEST_STEPS = 2 * _SAVES


@dataclass(frozen=True, slots=True)
class Sizing:
    """Length and cadence of a run.

    Attributes:
        steps: training steps of the whole run; the last one is saved in any case.
        interval: steps between two saves.
        save_s: seconds that the store needs for one save, at least; None where its speed is not known.
        cadence_s: seconds of compute between two saves.
    """

    steps: int
    interval: int
    save_s: float | None
    cadence_s: float

    @property
    def keeps_up(self) -> bool:
        """Whether the store can finish one save before the next begins."""
        return self.save_s is None or self.save_s < self.cadence_s


def choose_sizing(*, step_s: float, save_bytes: int, bytes_per_s: float | None, steps: int | None) -> Sizing:
    """Return length and cadence from a step's seconds, a save's bytes and the store's speed.

    Args:
        step_s: seconds of one training step on this machine.
        save_bytes: bytes that one save sends to the store.
        bytes_per_s: speed of the store; None where it is not known.
        steps: length that the user asked for, at least `FEWEST_STEPS`; None chooses it so that the store can keep up.
    """
    save_s = None if bytes_per_s is None else save_bytes / bytes_per_s
    if steps is None:
        cadence_s = max(_SHORTEST_CADENCE_S, _HEADROOM * (save_s or 0.0))
        steps = _SAVES * max(2, math.ceil(cadence_s / step_s))
    interval = math.ceil(steps / _SAVES)
    return Sizing(steps, interval, save_s, interval * step_s)
