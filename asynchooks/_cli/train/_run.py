"""One training from the command line, and the exit code that it ends with."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from asynchooks._cli._configured import (
    FAILED,
    INTERRUPTED,
    STORE,
    WRONG,
    blaming_config,
    load_config,
    runner_of,
    tell,
)
from asynchooks.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ConfigError,
    Preempted,
    StorageError,
    UnsafePathError,
)

if TYPE_CHECKING:
    from asynchooks.config import Config

__all__ = ["Changes", "run"]


@dataclass(frozen=True, slots=True)
class Changes:
    """What the command's options change in a configuration; None leaves it as it is."""

    work_dir: str | None
    resume: str | None
    mode: str | None
    device: str | None
    amp: bool
    launcher: str | None = None

    def apply(self, cfg: Config) -> None:
        """Change the configuration.

        Raises:
            ConfigError: it asks for mixed precision and has another wrapper of its own.
        """
        for name in ("work_dir", "resume", "mode", "device", "launcher"):
            value = getattr(self, name)
            if value is not None:
                cfg[name] = value
        if self.launcher is None and cfg.get("launcher") == "none" and "RANK" in os.environ:
            cfg.launcher = (
                "pytorch"  # MMEngine's default stands in many files; this process was started by torchrun
            )
        if self.amp:
            _use_amp(cfg)


def run(file: str, pairs: Sequence[str], changes: Changes, *, debug: bool) -> int:
    """Train, and return the exit code. What is wrong with the configuration is told without a traceback."""
    try:
        with blaming_config(debug=debug):
            cfg = load_config(file, pairs)
            changes.apply(cfg)
            runner = runner_of(cfg)
        runner.train()
    except typer.Exit as stopped:
        return stopped.exit_code
    except BaseException as error:  # noqa: BLE001 - the last frame of the program: the user is told, by kind
        return _outcome(error, debug=debug)
    return 0


def _outcome(error: BaseException, *, debug: bool) -> int:
    if isinstance(error, Preempted):
        typer.echo(f"Ended on request: {error}. --resume continues it.", err=True)
        return int(error.code or 0)
    interruption, rest = _split(error)
    if interruption:
        if rest is not None:
            traceback.print_exception(rest)
        typer.echo("Interrupted. What was in flight is finished, or named above.", err=True)
        return INTERRUPTED
    if debug or not isinstance(error, ConfigError | CheckpointError):  # these are told by their messages
        traceback.print_exception(error)
    tell(error)
    return _code(error)


def _code(error: BaseException) -> int:
    if isinstance(error, ConfigError | CheckpointNotFoundError | UnsafePathError):
        return WRONG
    return STORE if isinstance(error, StorageError) else FAILED


def _split(error: BaseException) -> tuple[bool, BaseException | None]:
    """Return whether a Ctrl-C is in an error, and what else is."""
    if isinstance(error, BaseExceptionGroup):
        interruption, rest = error.split(KeyboardInterrupt)
        return interruption is not None, rest
    return isinstance(error, KeyboardInterrupt), None


def _use_amp(cfg: Config) -> None:
    wrapper = cfg.get("optim_wrapper")
    kind = wrapper.get("type", "OptimWrapper") if isinstance(wrapper, Mapping) else None
    if kind not in ("OptimWrapper", "AmpOptimWrapper"):
        raise ConfigError(
            f"--amp makes an AmpOptimWrapper of optim_wrapper=dict(type='OptimWrapper', ...); this configuration has "
            f"optim_wrapper={wrapper!r}."
        )
    cfg.merge_from_dict({"optim_wrapper.type": "AmpOptimWrapper"})
    cfg.optim_wrapper.setdefault("loss_scale", "dynamic")
