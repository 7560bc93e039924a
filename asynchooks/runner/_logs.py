"""The log lines of a run: the first rank's, and from the other ranks what is a warning, with the rank in front."""

from __future__ import annotations

import logging

from asynchooks.distributed import is_first_rank, rank

__all__ = ["set_log_level", "show_logs"]

_LINE = "%(asctime)s %(levelname)s %(message)s"


def set_log_level(logger: logging.Logger, level: int | str) -> None:
    """Set the level of a run's logger; at least WARNING on all ranks but the first."""
    logger.setLevel(level)
    if not is_first_rank():
        logger.setLevel(max(logger.level, logging.WARNING))


def show_logs(logger: logging.Logger) -> None:
    """Show a run on the terminal, where nobody has configured logging."""
    if logger.hasHandlers():
        return
    handler = logging.StreamHandler()
    if is_first_rank():
        handler.setFormatter(logging.Formatter(_LINE))
    else:
        handler.setFormatter(logging.Formatter(f"rank {rank()}: {_LINE}"))
        handler.setLevel(logging.WARNING)
    logging.getLogger("asynchooks").addHandler(handler)
