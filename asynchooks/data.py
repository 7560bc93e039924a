"""What a run asks and does of its data: transforms from configurations, workers started anew, how long a loader is.

Transforms are what a data set calls with one sample; this knows neither samples nor data sets.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from asynchooks.errors import ConfigError
from asynchooks.registry import TRANSFORMS

__all__ = ["Compose", "Transform", "length_of", "restart_workers", "restarts_of", "shield_workers"]

Transform: TypeAlias = Callable[[Any], Any]


@TRANSFORMS.register_module()
class Compose:
    """Several transforms, one after the other. One that returns None drops the sample: so does this.

    Args:
        transforms: callables, and dicts for the registry TRANSFORMS; one of them, a list, or None for none.

    Raises:
        ConfigError: something that is neither.
        UnknownNameError, UnknownOptionError: a dict that names no transform, or an option that it does not take.
    """

    def __init__(self, transforms: Transform | Mapping[str, Any] | Iterable[Any] | None) -> None:
        if transforms is None:
            transforms = ()
        if callable(transforms) or isinstance(transforms, Mapping):
            transforms = (transforms,)
        if isinstance(transforms, str) or not isinstance(transforms, Iterable):
            raise ConfigError(
                f"A pipeline is a list of transforms, dict(type=...) or callables, not {transforms!r}."
            )
        self.transforms: list[Transform] = [_built(each) for each in transforms]

    def __call__(self, data: Any) -> Any:
        """Return what becomes of a sample."""
        for transform in self.transforms:
            data = transform(data)
            if data is None:
                return None
        return data

    def __repr__(self) -> str:
        return f"Compose({self.transforms!r})"


def restart_workers(loader: Any) -> None:
    """Have the next pass over a torch DataLoader start worker processes anew, with the data set as it is then.

    Persistent workers keep the copy of the data set that they were started with. Other loaders are left alone. Call
    it between two passes.
    """
    if getattr(loader, "persistent_workers", False):
        loader._iterator = None  # noqa: SLF001 - torch has no other way; the old workers end with the iterator
        setattr(loader, _RESTARTS, restarts_of(loader) + 1)


def restarts_of(loader: Any) -> int:
    """Return how often `restart_workers` was asked for, for who has made workers of its own for a loader."""
    return int(getattr(loader, _RESTARTS, 0))


_RESTARTS = "_asynchooks_restarts"


def _built(transform: Any) -> Transform:
    if isinstance(transform, Mapping):
        transform = TRANSFORMS.build(transform)
    if not callable(transform):
        raise ConfigError(f"A transform is a callable or a dict(type=...), not {transform!r}.")
    return transform  # type: ignore[no-any-return]


def length_of(loader: Any) -> int | None:
    """Return how many batches a loader has, or None where it does not say."""
    try:
        return len(loader)
    except TypeError:
        return None


def shield_workers(loader: Any, signals: Sequence[signal.Signals]) -> None:
    """Have the worker processes of a torch DataLoader ignore signals that are not sent by the process that trains.

    A cluster signals the whole process group; a worker that ends would fail the training in the midst of a save.
    Workers that run already are not changed. Other loaders are left alone.
    """
    if getattr(loader, "num_workers", 0) and not isinstance(loader.worker_init_fn, _Shielded):
        loader.worker_init_fn = _Shielded(signals, loader.worker_init_fn)


class _Shielded:
    """A worker's ``worker_init_fn``: the worker ignores signals that do not come from the process that trains."""

    def __init__(self, signals: Sequence[signal.Signals], then: Callable[[int], None] | None) -> None:
        self.signals, self.then = tuple(signals), then

    def __call__(self, worker_id: int) -> None:
        if hasattr(signal, "sigwaitinfo"):  # who has sent it is not told otherwise
            signal.pthread_sigmask(signal.SIG_BLOCK, self.signals)
            threading.Thread(target=self._answer, args=(os.getppid(),), daemon=True).start()
        if self.then is not None:
            self.then(worker_id)

    def _answer(self, parent: int) -> None:
        while signal.sigwaitinfo(self.signals).si_pid != parent:
            pass
        os._exit(0)  # as torch's own handler does
