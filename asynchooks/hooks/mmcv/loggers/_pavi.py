"""`PaviLoggerHook`: numbers, checkpoints and the model's graph for Pavi."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from asynchooks.errors import UnknownOptionError, did_you_mean
from asynchooks.execution import Effects, background
from asynchooks.hooks.mmcv.loggers._background import BackgroundLogger
from asynchooks.hooks.mmcv.loggers._parts import copy_on_host, in_order, in_thread
from asynchooks.hooks.mmcv.loggers._record import Record
from asynchooks.hooks.mmcv.loggers._session import session_text
from asynchooks.registry import MMCV_HOOKS
from asynchooks.visualization import check_package, numbers_by_name

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart

__all__ = ["PaviLoggerHook"]

_CKPT = {"active": False, "start": 0, "interval": 1}
_GRAPH = {**_CKPT, "img_key": "img", "opset_version": 11, "dummy_forward_kwargs": {}}


@MMCV_HOOKS.register_module()
class PaviLoggerHook(BackgroundLogger):
    """Writes to a training of Pavi.

    A checkpoint is uploaded once it is durable: the part that reads it waits for the save, the training does not.
    The graph is traced from a copy of the model, with the first batch that is due. (MMCV draws a batch of its own,
    which changes the training.)

    Args:
        init_kwargs: arguments of ``pavi.SummaryWriter``.
        add_graph, img_key: old names of ``add_graph_kwargs["active"]`` and ``["img_key"]``.
        add_last_ckpt: whether the newest checkpoint is uploaded at the end of a run.
        interval, ignore_last, reset_flag, by_epoch: as of `LoggerHook`.
        add_graph_kwargs: "active", "start", "interval" (epochs or iterations), "img_key", "opset_version",
            "dummy_forward_kwargs".
        add_ckpt_kwargs: "active", "start", "interval" of the checkpoints that are uploaded.

    Raises:
        ConfigError: pavi is not installed. UnknownOptionError: a key that there is not.
    """

    def __init__(
        self,
        init_kwargs: Mapping[str, Any] | None = None,
        add_graph: bool | None = None,  # noqa: FBT001 - MMCV's order of arguments
        img_key: str | None = None,
        add_last_ckpt: bool = False,  # noqa: FBT001, FBT002
        interval: int = 10,
        ignore_last: bool = True,  # noqa: FBT001, FBT002
        reset_flag: bool = False,  # noqa: FBT001, FBT002
        by_epoch: bool = True,  # noqa: FBT001, FBT002
        add_graph_kwargs: Mapping[str, Any] | None = None,
        add_ckpt_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        check_package("PaviLoggerHook", "pavi")
        super().__init__(interval, ignore_last, reset_flag, by_epoch)
        self.init_kwargs = dict(init_kwargs or {})
        self.add_last_ckpt = add_last_ckpt
        self._graph = _options("add_graph_kwargs", _GRAPH, add_graph_kwargs)
        self._graph |= {} if add_graph is None else {"active": add_graph}
        self._graph |= {} if img_key is None else {"img_key": img_key}
        self._ckpt = _options("add_ckpt_kwargs", _CKPT, add_ckpt_kwargs)
        reads = {"checkpoints"} if add_last_ckpt or self._ckpt["active"] else set()
        self.effects = Effects(reads=reads, writes={"logs.pavi"})
        self._name = ""
        self._writer: Any = None
        self._writer_kwargs: dict[str, Any] = {}

    def get_step(self, runner: Any) -> int:
        """Return the epoch for a validation where epochs are counted, else the iteration."""
        is_epoch = self.get_mode(runner) == "val" and self.by_epoch
        return self.get_epoch(runner) if is_epoch else self.get_iter(runner)

    @background
    def before_run(self, runner: Any) -> BackgroundPart | None:
        """Open the training."""
        super().before_run(runner)
        self._name = os.path.basename(os.fspath(runner.work_dir or "").rstrip("/"))  # noqa: PTH119 - or a URL
        text = session_text(runner.meta, runner.max_iters)
        self._writer_kwargs = {
            "name": self._name,
            "model": runner.model_name,
            **({} if text is None else {"session_text": text}),
            **self.init_kwargs,
        }
        return in_thread(self._open) if runner.rank == 0 else None

    @background
    def before_train_iter(self, runner: Any) -> BackgroundPart | None:  # type: ignore[override]
        """Trace the graph, where it is due."""
        step = self.get_epoch(runner) if self.by_epoch else self.get_iter(runner)
        is_start = not self.by_epoch or runner.inner_iter == 0
        if runner.rank != 0 or not is_start or not _is_due(self._graph, step):
            return None
        model, image = copy_on_host(runner.model), _image(runner.data_batch, self._graph["img_key"])
        return in_thread(partial(self._trace, model, image, f"{self._name}_{step}"))

    @background
    def after_train_epoch(self, runner: Any) -> BackgroundPart | None:
        """Log, and upload the epoch's checkpoint where it is due."""
        line = super().after_train_epoch(runner)
        step = self.get_epoch(runner)
        return in_order(line, self._upload(runner, f"epoch_{step}.pth", step, by_epoch=True))

    @background
    def after_train_iter(self, runner: Any) -> BackgroundPart | None:  # type: ignore[override]
        """Log, and upload the iteration's checkpoint where it is due."""
        line = super().after_train_iter(runner)
        step = self.get_iter(runner)
        return in_order(line, self._upload(runner, f"iter_{step}.pth", step, by_epoch=False))

    @background
    def after_run(self, runner: Any) -> BackgroundPart | None:
        """Upload the newest checkpoint where that is wanted, and end the training."""
        last = None
        if self.add_last_ckpt and runner.rank == 0 and runner.work_dir is not None:
            step = runner.epoch if self.by_epoch else runner.iter
            last = in_thread(
                partial(self._add_file, Path(runner.work_dir, "latest.pth"), step, runner.logger)
            )
        return in_order(last, super().after_run(runner))

    def _upload(self, runner: Any, name: str, step: int, *, by_epoch: bool) -> BackgroundPart | None:
        is_wanted = by_epoch is self.by_epoch and _is_due(self._ckpt, step)
        if not is_wanted or runner.rank != 0 or runner.work_dir is None:
            return None
        return in_thread(partial(self._add_file, Path(runner.work_dir, name), step, runner.logger))

    def _extra(self, runner: Any) -> int:
        return self.get_step(runner)

    def _write(self, record: Record) -> None:
        numbers = numbers_by_name(record.tags(add_mode=False))
        if numbers:
            self._open().add_scalars(record.mode, numbers, record.extra)

    def _add_file(self, path: Path, step: int, logger: Any) -> None:
        path = path.resolve()
        if path.is_file():
            self._open().add_snapshot_file(tag=self._name, snapshot_file_path=os.fspath(path), iteration=step)
        else:
            logger.warning("Pavi gets no checkpoint of step %d: there is no file %s", step, path)

    def _trace(self, model: Any, image: Any, tag: str) -> None:
        forward = getattr(model, "forward_dummy", model.forward)
        model.forward = partial(forward, **self._graph["dummy_forward_kwargs"])
        with torch.no_grad():
            self._open().add_graph(model, image, tag=tag, opset_version=self._graph["opset_version"])

    def _open(self) -> Any:
        if self._writer is None:
            self._writer = import_module("pavi").SummaryWriter(**self._writer_kwargs)
        return self._writer

    def _finish(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


def _options(name: str, known: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    for key in given or {}:
        if key not in known:
            raise UnknownOptionError(
                f"PaviLoggerHook({name}=...) has no key {key!r}.{did_you_mean(key, known)} It has {', '.join(known)}."
            )
    return {**known, **(given or {})}


def _is_due(options: Mapping[str, Any], step: int) -> bool:
    since = step - options["start"]
    return bool(options["active"] and since >= 0 and since % options["interval"] == 0)


def _image(batch: Any, key: str) -> Any:
    image = batch[key] if isinstance(batch, Mapping) else batch
    return image.detach().cpu().clone() if isinstance(image, torch.Tensor) else copy.deepcopy(image)
