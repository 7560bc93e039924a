"""A configuration file as commands take it: options over it, and the runner that it describes.

Decides what is the configuration's fault: everything that goes wrong before the run begins. Knows no command.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from asynchooks.config import Config, import_modules, parse_options
from asynchooks.errors import AsyncHooksError, StorageError

if TYPE_CHECKING:
    from asynchooks.runner import Runner
    from asynchooks.runner.mmcv import ConfiguredRun

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "STORE",
    "WRONG",
    "blaming_config",
    "import_from_here",
    "load_config",
    "runner_of",
    "tell",
]

FAILED, WRONG, STORE, INTERRUPTED = 1, 2, 3, 130


def import_from_here(modules: Sequence[str] = ()) -> None:
    """Have modules found in the current folder too, as with ``python -m``, and import some."""
    if os.getcwd() not in sys.path:  # noqa: PTH109 - sys.path holds texts
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    import_modules({"imports": list(modules)}, source="--import")


def load_config(file: str, pairs: Sequence[str]) -> Config:
    """Read a configuration, with the options of a command line over it, and a work folder."""
    import_from_here()
    cfg = Config.fromfile(file)
    cfg.merge_from_dict(parse_options(pairs))
    if cfg.get("work_dir") is None:
        cfg.work_dir = f"./work_dirs/{Path(file).stem}"
    return cfg


def runner_of(cfg: Config) -> Runner | ConfiguredRun:
    """Build the run that a configuration describes, of MMEngine's form or of MMCV's.

    ``runner_type`` names another class than `Runner`.
    """
    from asynchooks.registry import RUNNERS
    from asynchooks.runner._configuration import has_mmcv_form
    from asynchooks.runner.mmcv import ConfiguredRun

    if "runner_type" not in cfg and has_mmcv_form(cfg):
        return ConfiguredRun.from_cfg(cfg)
    kind: Any = RUNNERS.get(cfg.get("runner_type", "Runner"))
    runner: Runner = kind.from_cfg(cfg)
    return runner


@contextmanager
def blaming_config(*, debug: bool) -> Iterator[None]:
    """Tell an error as one message, without a traceback, and exit: with 2, or 3 where a store is at fault."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the user is told
        if debug:
            traceback.print_exc()
        tell(error)
        if not debug and not isinstance(error, AsyncHooksError):
            typer.echo("--debug shows where.", err=True)
        raise typer.Exit(STORE if isinstance(error, StorageError) else WRONG) from None


def tell(error: BaseException) -> None:
    """Print an error with its notes on stderr; its class too, where it is not one of this package's.

    Where there are ranks, this one's number stands in front.
    """
    rank = f"rank {os.environ.get('RANK')}: " if os.environ.get("WORLD_SIZE", "1") != "1" else ""
    kind = "" if isinstance(error, AsyncHooksError) else f"{type(error).__name__}: "
    typer.echo("\n".join([f"{rank}error: {kind}{error}", *getattr(error, "__notes__", ())]), err=True)
