"""How fast a schedule that was converted from epochs moves: an epoch of it takes an epoch, whatever its iterations.

A run that goes on with another number of ranks has longer or shorter epochs. The schedule goes on in the iterations
that it began with, several of them in one of the present ones or none; so its values stay those of its formula, which
no rescaled position gives: the formulas compute each value from the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Pace"]


@dataclass(slots=True)
class Pace:
    """Counts the steps of a schedule that are due.

    Attributes:
        length: iterations of an epoch of this run.
        build: returns the schedule for epochs of so many steps.
        unit: steps of the schedule in an epoch.
        owed: what is due of the next step, in parts of ``length``.
    """

    length: int
    build: Callable[[int], Any]
    unit: int = 0
    owed: int = 0

    def __post_init__(self) -> None:
        self.unit = self.unit or self.length

    def steps_due(self) -> int:
        """Return the steps that go with one iteration, and count it."""
        due, self.owed = divmod(self.owed + self.unit, self.length)
        return due

    def state_dict(self) -> dict[str, int]:
        """Return the pace, as plain numbers."""
        return {"length": self.length, "unit": self.unit, "owed": self.owed}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on at the pace that `state_dict` told, in epochs of this run."""
        self.unit, self.owed = state["unit"], state["owed"] * self.length // state["length"]
