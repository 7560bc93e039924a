"""Ends a run from which the machine is taken: a save at one iteration on all ranks, then an exit code."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

from asynchooks.data import shield_workers
from asynchooks.distributed import Votes, control_group, is_first_rank
from asynchooks.errors import ConfigError, Preempted
from asynchooks.execution import Effects, Hook
from asynchooks.registry import HOOKS

__all__ = ["PreemptionHook"]

logger = logging.getLogger(__name__)


@HOOKS.register_module()
class PreemptionHook(Hook):
    """Ends the training in good order at a signal, so that a resumed run goes on bit-identically.

    The signal is noted; after the iteration in which it came (with ranks: when all know of it, an iteration later)
    every rank saves a checkpoint, ``iter_{n}``, and leaves with `Preempted`, a ``SystemExit``. What is in flight gets
    what is left of the grace period, the checkpoint the last of it. A signal during a validation waits for its end.
    More signals of these change nothing; two Ctrl-C still end everything at once.

    The program's own handlers of these signals do not run while it trains; they come back afterwards, except after a
    preemption: then they are ignored while the process ends. Workers of torch DataLoaders, which get a signal to the
    process group too, ignore it. In a loop of one's own with ranks, each fires ``before_train`` and ``after_train``.

    Args:
        signals: names of signals: SIGTERM is what clusters send before they kill; SIGUSR1 what Slurm can be asked for
            ahead of the time limit (``#SBATCH --signal=USR1@120``).
        grace_period: seconds from the signal until the process has to have ended.
        exit_code: of the process; 75 (EX_TEMPFAIL) says to a scheduler: start me again.
        save: whether a checkpoint is saved; it needs a checkpoint hook.

    Attributes:
        is_preempted: whether the training is to end; for a loop of one's own that does not fire further iterations.

    Raises:
        ConfigError, TypeError: a wrong value.
    """

    priority = "VERY_HIGH"
    effects = Effects()
    changes_state = False

    def __init__(
        self,
        signals: Sequence[str] = ("SIGTERM", "SIGUSR1"),
        grace_period: float = 25.0,
        exit_code: int = 75,
        *,
        save: bool = True,
    ) -> None:
        self.signals = _checked_signals(signals)
        if (
            isinstance(grace_period, bool)
            or not isinstance(grace_period, int | float)
            or not grace_period > 0
        ):
            raise ConfigError(f"PreemptionHook(grace_period={grace_period!r}): give seconds above 0.")
        if isinstance(exit_code, bool) or not isinstance(exit_code, int) or not 0 < exit_code < 256:
            raise ConfigError(f"PreemptionHook(exit_code={exit_code!r}): give a number from 1 to 255.")
        self.grace_period = float(grace_period)
        self.exit_code = exit_code
        self.save = save
        self._together: Any = None
        self._votes = Votes(None)
        self._ending: Preempted | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._where = ""
        self._runner: Any = None
        self._forget()

    def _forget(self) -> None:
        self._reason: str | None = None
        self._deadline: float | None = None
        self._ending = None

    @property
    def is_preempted(self) -> bool:
        """Whether the training is to end."""
        return self._ending is not None

    def before_train(self, runner: Any) -> None:
        """Take over the signals, and shield the workers of the loaders from them. A collective."""
        self._forget()
        self._together = getattr(runner, "together", None)
        self._votes = Votes(control_group() if self._together is None else None)
        self._runner = runner
        if threading.current_thread() is not threading.main_thread():
            logger.warning(
                "PreemptionHook: signals can be noticed on the main thread alone; this run trains on another"
            )
            return
        for name in ("train_dataloader", "val_dataloader"):
            shield_workers(getattr(runner, name, None), self.signals)
        for number in self.signals:
            self._before.setdefault(number, signal.signal(number, self._on_signal))

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """When all ranks know that one was asked to end: ask for a checkpoint, and for the end."""
        del batch_idx, data_batch, outputs
        if self._ending is not None or not self._is_asked():
            return
        reason = self._reason or "another rank was asked to end"
        deadline = self._deadline or time.monotonic() + self.grace_period
        self._where = f"at iteration {runner.iter + 1}"
        self._ending = Preempted(self.exit_code, reason=f"{reason}, {self._where}", deadline=deadline)
        if self.save:
            runner.request_checkpoint()
        loop = getattr(runner, "train_loop", None)
        if loop is not None and hasattr(loop, "leave"):
            loop.leave(self._ending)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Leave a loop that does not end by itself.

        Raises:
            Preempted: the run was asked to end.
        """
        if self._ending is not None:
            raise self._ending

    def after_train_epoch(self, runner: Any) -> None:
        """Leave, as before an iteration."""
        if self._ending is not None:
            raise self._ending

    def after_train(self, runner: Any) -> None:
        """Let no rank end amid a vote."""
        self._votes.settle()

    def after_run(self, runner: Any) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def close(self) -> None:
        """Say what became of the run, and let nothing interrupt its end."""
        if self._ending is None:
            self.after_run(None)
            return
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)
        self._before.clear()
        given_up = ", ".join(self._ending.given_up)
        saved = getattr(self._runner, "last_committed", None) or "none since the start"
        last = f" last checkpoint: {saved};" if is_first_rank() else ""  # it commits; the others may not know
        logger.warning(
            "%s;%s given up: %s; exit code %d",
            self._ending,
            last,
            given_up or "nothing",
            self.exit_code,
        )

    def _is_asked(self) -> bool:
        """Whether all ranks know that one was asked to end; they say so at the same iteration."""
        if self._together is not None:
            return bool(self._together.is_leaving)
        is_asked = bool(self._votes.cast(self._reason is not None))
        if is_asked:
            self._votes.settle()  # who leaves amid a vote fails it for the others
        return is_asked

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Called by Python on the main thread, between any two instructions: notes, and nothing else."""
        if self._reason is None:
            self._deadline = time.monotonic() + self.grace_period
            self._reason = signal.Signals(number).name
            if self._together is not None:
                self._together.wants_leave = True


def _checked_signals(names: Any) -> tuple[signal.Signals, ...]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"PreemptionHook(signals={names!r}): give a list of names, such as ['SIGTERM'].")
    known = [s.name for s in signal.Signals if s not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGINT)]
    for name in names:
        if name not in known:
            raise ConfigError(f"PreemptionHook(signals={names!r}): {name!r} is no signal that can be taken.")
    return tuple(signal.Signals[name] for name in names)
