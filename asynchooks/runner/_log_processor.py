"""The log processor: from the message hub to the numbers and the line that a log shows.

Works in two steps. `capture` runs on the training thread and only copies; `format` computes the numbers and
the text from the copy, on whatever thread, and may wait for a device there. So a line costs no device sync
on the training thread, and reads the same in both modes.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch

from asynchooks.data import length_of
from asynchooks.errors import ConfigError, UnknownOptionError, did_you_mean
from asynchooks.registry import LOG_PROCESSORS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asynchooks.runner._history import Window

__all__ = ["LogMode", "LogProcessor", "LogRecord"]

LogMode: TypeAlias = Literal["train", "val", "test"]

_CUSTOM_KEYS = ("data_src", "log_name", "method_name", "window_size")
_TIMES = ("time", "data_time")


@dataclass(frozen=True, slots=True)
class LogRecord:
    """Everything that one log line needs, as it was at one instant. Safe on any thread.

    Attributes:
        mode: "train", "val" or "test".
        header: first words of the line, such as ``Epoch(train) [1][10/100]``.
        scalars: per name, the statistic and the window that it is computed from.
        infos: infos that are shown beside the scalars of a summary.
        position: "epoch" and "iter" of the tag.
        eta: seconds left, or None.
        memory: peak device memory in MB, or None.
        is_summary: whether the line sums up a whole validation or test.
    """

    mode: LogMode
    header: str
    scalars: tuple[tuple[str, str, Window], ...]
    infos: Mapping[str, Any] = field(default_factory=dict)
    position: Mapping[str, int] = field(default_factory=dict)
    eta: float | None = None
    memory: int | None = None
    is_summary: bool = False


@LOG_PROCESSORS.register_module()
class LogProcessor:
    """Chooses, averages and prints the scalars of the message hub.

    Args:
        window_size: values that a mean covers.
        by_epoch: whether positions are shown in epochs; None follows the training loop.
        custom_cfg: further statistics: ``dict(data_src="loss", log_name="loss_epoch", method_name="mean",
            window_size="epoch")``; a window is an int, "epoch" or "global".
        num_digits: digits after the point.
        log_with_hierarchy: whether tags keep their prefix: ``train/loss``.
        mean_pattern: names whose mean is shown; of others, the newest value.
    """

    def __init__(
        self,
        window_size: int = 10,
        by_epoch: bool | None = None,  # noqa: FBT001 - MMEngine's order of arguments
        custom_cfg: Sequence[Mapping[str, Any]] | None = None,
        num_digits: int = 4,
        log_with_hierarchy: bool = False,  # noqa: FBT001, FBT002
        mean_pattern: str = r".*(loss|time|data_time|grad_norm).*",
    ) -> None:
        for name, value, least in (("window_size", window_size, 1), ("num_digits", num_digits, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"LogProcessor({name}={value!r}): give an int of at least {least}.")
        self.window_size = window_size
        self.by_epoch = by_epoch
        self.custom_cfg = [_checked(cfg) for cfg in custom_cfg or ()]
        self.num_digits = num_digits
        self.log_with_hierarchy = log_with_hierarchy
        self._means = re.compile(mean_pattern)

    def capture(
        self, runner: Any, batch_idx: int, mode: LogMode = "train", *, is_summary: bool = False
    ) -> LogRecord:
        """Copy what a line needs. Called on the training thread; does not wait for the device.

        Args:
            runner: the run, or any object with a ``message_hub``.
            batch_idx: batch in the current pass over the data, from 0.
            mode: what runs.
            is_summary: whether the line sums up a whole validation or test, whose last batch this was.
        """
        hub = runner.message_hub
        by_epoch = self._is_by_epoch(runner)
        position = {"iter": runner.iter + 1 if mode == "train" else runner.iter}
        if by_epoch and mode != "test":
            position["epoch"] = runner.epoch + 1 if mode == "train" else runner.epoch
        return LogRecord(
            mode=mode,
            header=_header(runner, batch_idx, mode, by_epoch=by_epoch, is_summary=is_summary),
            scalars=tuple(self._scalars(runner, batch_idx, mode, is_summary=is_summary)),
            infos=self._infos(hub, mode) if is_summary else {},
            position=position,
            eta=hub.get_info("eta"),
            memory=torch.cuda.max_memory_allocated() // 2**20 if torch.cuda.is_available() else None,
            is_summary=is_summary,
        )

    def format(self, record: LogRecord) -> tuple[dict[str, float | int], str]:
        """Return the numbers of a line and its text. On any thread; may wait for a device."""
        numbers = {name: window.statistic(method) for name, method, window in record.scalars}
        if record.is_summary:
            return self._summary(record, numbers)
        tag = {**numbers, **record.position}
        words = [record.header]
        plain = {self._bare(name, record.mode): value for name, value in numbers.items()}
        rates = [name for name in plain if name.endswith("lr")]
        words += [" ".join(f"{name}: {plain.pop(name):.{self.num_digits}e}" for name in rates)]
        if all(name in plain for name in _TIMES) and record.eta is not None:
            words.append(f"eta: {dt.timedelta(seconds=int(record.eta))}")
            words += [self._word(name, plain.pop(name)) for name in _TIMES]
        if record.memory is not None:
            words.append(f"memory: {record.memory}")
            tag["memory"] = record.memory
        if record.mode != "test":
            shown = (n for n in plain if record.mode == "train" or n.startswith("loss"))
            words += [self._word(name, plain[name]) for name in shown]
        return tag, "  ".join(word for word in words if word)

    def get_log_after_iter(
        self, runner: Any, batch_idx: int, mode: LogMode
    ) -> tuple[dict[str, float | int], str]:
        """Capture and format at once, as MMEngine does."""
        return self.format(self.capture(runner, batch_idx, mode))

    def get_log_after_epoch(
        self, runner: Any, batch_idx: int, mode: LogMode
    ) -> tuple[dict[str, float | int], str]:
        """Capture and format the summary of a validation or test at once, as MMEngine does."""
        return self.format(self.capture(runner, batch_idx, mode, is_summary=True))

    def _summary(self, record: LogRecord, numbers: dict[str, float]) -> tuple[dict[str, float | int], str]:
        times = [name for name in numbers if self._bare(name, record.mode) in _TIMES]
        ordered = {name: value for name, value in numbers.items() if name not in times}
        shown = {**ordered, **record.infos, **{name: numbers[name] for name in times}}
        words = [self._word(name, value) for name, value in shown.items()]
        return {**ordered, **{name: numbers[name] for name in times}}, "  ".join([record.header, *words])

    def _is_by_epoch(self, runner: Any) -> bool:
        if self.by_epoch is not None:
            return self.by_epoch
        return bool(getattr(runner, "by_epoch", True))

    def _scalars(
        self, runner: Any, batch_idx: int, mode: LogMode, *, is_summary: bool
    ) -> list[tuple[str, str, Window]]:
        """Return name, statistic and window of everything that is shown, later entries replacing earlier."""
        histories = {
            key.removeprefix(f"{mode}/"): history
            for key, history in runner.message_hub.log_scalars.items()
            if key.startswith(f"{mode}/") and len(history)
        }
        chosen: dict[str, tuple[str, Window]] = {}
        for name, history in histories.items():
            # A metric called "loss" is one number per validation: its mean would mix validations.
            is_mean = self._means.match(name) is not None and (mode == "train" or name in _TIMES)
            chosen[name] = (
                "mean" if is_mean else "current",
                history.window(self.window_size if is_mean else 1),
            )
        custom = [*self.custom_cfg]
        if is_summary:
            custom = [
                *({"data_src": t, "method_name": "mean", "window_size": "epoch"} for t in _TIMES),
                *custom,
            ]
        for cfg in custom:
            source = cfg["data_src"].removeprefix(f"{mode}/")
            if source in histories:
                size = _window_size(cfg.get("window_size"), runner, batch_idx)
                window = histories[source].window(size)
                chosen[cfg.get("log_name", source)] = (cfg.get("method_name", "mean"), window)
        prefix = f"{mode}/" if self.log_with_hierarchy else ""
        return [(f"{prefix}{name}", method, window) for name, (method, window) in chosen.items()]

    def _infos(self, hub: Any, mode: LogMode) -> dict[str, Any]:
        prefix = f"{mode}/"
        return {
            key if self.log_with_hierarchy else key.removeprefix(prefix): str(value)
            for key, value in hub.runtime_info.items()
            if key.startswith(prefix)
        }

    def _bare(self, name: str, mode: LogMode) -> str:
        return name.removeprefix(f"{mode}/")

    def _word(self, name: str, value: Any) -> str:
        return f"{name}: {value:.{self.num_digits}f}" if isinstance(value, float) else f"{name}: {value}"


def _checked(cfg: Mapping[str, Any]) -> dict[str, Any]:
    for key in cfg:
        if key not in _CUSTOM_KEYS:
            raise UnknownOptionError(
                f"LogProcessor(custom_cfg=...) takes no {key!r}.{did_you_mean(key, _CUSTOM_KEYS)} "
                f"It takes {', '.join(_CUSTOM_KEYS)}."
            )
    if "data_src" not in cfg:
        raise ConfigError(
            f"LogProcessor(custom_cfg=...): 'data_src' says which scalar; it is missing in {cfg!r}."
        )
    size = cfg.get("window_size")
    if size not in (None, "epoch", "global") and (isinstance(size, bool) or not isinstance(size, int)):
        raise ConfigError(f"A window_size is an int, 'epoch' or 'global', not {size!r}.")
    if cfg.get("method_name", "mean") not in ("mean", "min", "max", "current"):
        raise ConfigError(f"A method_name is mean, min, max or current, not {cfg['method_name']!r}.")
    return dict(cfg)


def _window_size(size: int | str | None, runner: Any, batch_idx: int) -> int | None:
    if size == "epoch":
        return batch_idx + 1
    if size == "global":
        return int(runner.iter) + 1
    return size if isinstance(size, int) else None


def _header(runner: Any, batch_idx: int, mode: LogMode, *, by_epoch: bool, is_summary: bool) -> str:
    length = length_of(getattr(runner, f"{mode}_dataloader", None))
    unit = "Epoch" if by_epoch else "Iter"
    batch = _of(length if is_summary and length is not None else batch_idx + 1, length)
    if not by_epoch and mode == "train":
        return f"Iter(train) {_of(runner.iter + 1, runner.max_iters)}"
    if not by_epoch or mode == "test":
        return f"{unit}({mode}) {batch}"
    epoch = runner.epoch + 1 if mode == "train" else runner.epoch
    width = len(str(runner.max_epochs or "")) + 3  # the brackets and the space before them
    return f"Epoch({mode}){f'[{epoch}]'.rjust(width)}{batch}"


def _of(number: int, total: int | None) -> str:
    return f"[{number}]" if total is None else f"[{str(number).rjust(len(str(total)))}/{total}]"
