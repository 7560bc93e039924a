"""The visualizer of a run: built from what was given, told of the data, closed with the run.

Decides the default: scalars and images as files in the folder of the run's logs, and nothing where that is on a
remote store.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from asynchooks.errors import ConfigError
from asynchooks.registry import VISUALIZERS, option_names
from asynchooks.visualization import LocalVisBackend

__all__ = ["closing", "tell_of_data", "visualizer_of"]

logger = logging.getLogger(__name__)


def visualizer_of(run: Any, given: Any, scope: str | None = None) -> Any:
    """Return the visualizer of a run.

    Args:
        run: has ``experiment_name`` and ``log_dir``, which are what a dict without ``name`` or ``save_dir`` means.
        given: the visualizer, its dict for the registry VISUALIZERS (``type`` may be left out), or None.
        scope: scope that is asked first for a bare name.

    Raises:
        ConfigError: it is no visualizer.
    """
    if given is None:
        return None if run.log_dir is None else _built({"vis_backends": [LocalVisBackend()]}, run, None)
    if isinstance(given, Mapping):
        return _built(given, run, scope)
    if not hasattr(given, "add_scalars"):
        raise ConfigError(
            f"visualizer is a Visualizer or dict(type='Visualizer', vis_backends=[...]), not {given!r}."
        )
    return given


def tell_of_data(visualizer: Any, loader: Any) -> None:
    """Tell a visualizer the classes and colors of a loader's data set, where it says them (``metainfo``)."""
    metainfo = getattr(getattr(loader, "dataset", None), "metainfo", None)
    if visualizer is not None and metainfo is not None:
        visualizer.dataset_meta = metainfo


@contextmanager
def closing(visualizer: Any) -> Iterator[None]:
    """Close a visualizer at the end, whatever ends it. A later call of its methods opens it again."""
    try:
        yield
    finally:
        if visualizer is not None:
            try:
                visualizer.close()
            except Exception:  # what the run did is done; the log tells
                logger.exception("the visualizer could not be closed")


def _built(given: Mapping[str, Any], run: Any, scope: str | None) -> Any:
    cfg = {"type": "Visualizer", **given}
    names, is_open = option_names(VISUALIZERS.resolve(cfg, scope=scope)[0])
    offered = {"name": run.experiment_name, "save_dir": run.log_dir}
    provided = {n: value for n, value in offered.items() if value is not None and (is_open or n in names)}
    return VISUALIZERS.build(cfg, scope=scope, **provided)
