"""The phases of a run, ``[("train", 2), ("val", 1)]``, their batches, and where among them the run stands.

Decides what comes next and how a position is described; calls nothing and knows no hook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from asynchooks.errors import ConfigError
from asynchooks.runner._data import BatchFeed

__all__ = ["Workflow", "checked_workflow"]

Phase = tuple[str, int]


def checked_workflow(workflow: Any, data_loaders: Any, modes: Callable[[str], bool]) -> list[Phase]:
    """Return the phases of a workflow.

    Args:
        workflow: pairs of a mode and how often it runs.
        data_loaders: one loader for each pair.
        modes: whether the runner has a mode.

    Raises:
        TypeError: not a list of pairs, not a list of loaders, or a mode that is no string.
        ValueError: an unknown mode, a wrong number, or not one loader for each pair.
    """
    if not isinstance(data_loaders, list | tuple):
        raise TypeError(f"run() takes a list of data loaders, one for each phase, not {data_loaders!r}.")
    if not isinstance(workflow, list | tuple) or not all(
        isinstance(phase, list | tuple) and len(phase) == 2 for phase in workflow
    ):
        raise TypeError(f"workflow is a list of pairs such as [('train', 2), ('val', 1)], not {workflow!r}.")
    if len(data_loaders) != len(workflow):
        raise ConfigError(
            f"{len(data_loaders)} data loaders came for {len(workflow)} phases, {workflow!r}; give one for each."
        )
    phases: list[Phase] = []
    for mode, times in workflow:
        if not isinstance(mode, str):
            raise TypeError(f"workflow: a mode is a string such as 'train', not {mode!r}.")
        if not modes(mode):
            raise ConfigError(
                f"workflow: the runner has no method named {mode!r}; there are 'train' and 'val'."
            )
        if isinstance(times, bool) or not isinstance(times, int) or times < 0:
            raise ConfigError(f"workflow: ({mode!r}, {times!r}) says how often by an int of at least 0.")
        phases.append((mode, times))
    return phases


class Workflow:
    """The phases with their loaders.

    Args:
        phases: pairs of a mode and how often it runs.
        loaders: one for each.

    Attributes:
        index: the phase that runs.
        repeats: how often it has run already.
    """

    def __init__(self, phases: Sequence[Phase], loaders: Iterable[Any]) -> None:
        self.phases = list(phases)
        self.feeds = [BatchFeed(loader) for loader in loaders]
        self.index = 0
        self.repeats = 0

    def loader_index(self, mode: str) -> int | None:
        """Return the first phase of a mode, or None."""
        return next((i for i, (each, _) in enumerate(self.phases) if each == mode), None)

    def feed_of(self, loader: Any) -> BatchFeed:
        """Return what draws a loader's batches: that of the phase that runs, where it is its loader."""
        feed = self.feeds[self.index]
        return feed if feed.loader is loader else BatchFeed(loader)

    def remaining(self, is_done: Callable[[], bool], progress: Callable[[], object]) -> Iterator[str]:
        """Yield the mode of each turn from here on, until the run is done.

        Args:
            is_done: whether the training has reached its end; a round of phases is gone through all the same.
            progress: what changes with every training turn.

        Raises:
            ConfigError: a whole round trains nothing, so that it would go on for ever.
        """
        while not is_done():
            before, is_whole = progress(), not (self.index or self.repeats)
            while self.index < len(self.phases):
                mode, times = self.phases[self.index]
                while self.repeats < times and not (mode == "train" and is_done()):
                    yield mode
                    self.repeats += 1
                self.index, self.repeats = self.index + 1, 0
            self.index = 0
            if is_whole and progress() == before:
                raise ConfigError(f"workflow={self.phases!r} trains nothing, so it would never end.")

    def state_dict(self, *, turn_is_done: bool, done: int | None) -> dict[str, Any]:
        """Return the position.

        Args:
            turn_is_done: whether the turn that runs is done already, though it is not counted.
            done: batches done of the pass of the phase that runs; None for all that were drawn.
        """
        feeds = [
            feed.state_dict(feed.drawn if done is None or i != self.index else done)
            for i, feed in enumerate(self.feeds)
        ]
        return {
            "phases": [list(phase) for phase in self.phases],
            "index": self.index,
            "repeats": self.repeats + turn_is_done,
            "feeds": feeds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a position; with other phases than then, the round starts anew."""
        saved = [tuple(phase) for phase in state["phases"]]
        if saved == self.phases:
            self.index, self.repeats = state["index"], state["repeats"]
        for (mode, _), (its_mode, _), feed, feed_state in zip(
            self.phases, saved, self.feeds, state["feeds"], strict=False
        ):
            if mode == its_mode:
                feed.load_state_dict(feed_state)
