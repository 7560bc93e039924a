"""torch's profiler over the first epochs or iterations of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import torch
from torch import profiler

from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, RunnerHook, background
from asynchooks.registry import MMCV_HOOKS, check_options

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart

__all__ = ["ProfilerHook"]

_ACTIVITIES = {"cpu": profiler.ProfilerActivity.CPU, "cuda": profiler.ProfilerActivity.CUDA}
_HANDLERS = ("log_trace", "tb_trace")


@MMCV_HOOKS.register_module()
class ProfilerHook(RunnerHook):
    """Profiles the first epochs or iterations on rank 0, once; the trace is written in the background.

    Args:
        by_epoch: whether ``profile_iters`` counts epochs (else iterations).
        profile_iters: how many are profiled, counted from where the run starts.
        activities: "cpu", "cuda"; the latter counts where there is a device.
        schedule: arguments of `torch.profiler.schedule`; None profiles every iteration.
        on_trace_ready: function of the profiler, called on the training thread; or ``dict(type="log_trace",
            sort_by=...)``, which logs a table, or ``dict(type="tb_trace", dir_name=...)``, which writes for
            TensorBoard, into the work folder where the name is relative.
        record_shapes, profile_memory, with_stack, with_flops: as of `torch.profiler.profile`.
        json_trace_path: file that the trace is written to, in Chrome's format.

    Raises:
        ConfigError, TypeError: an argument is wrong.
    """

    effects = Effects(writes={"profiles"})
    changes_state = False

    def __init__(
        self,
        by_epoch: bool = True,  # noqa: FBT001, FBT002 - MMCV's order of arguments
        profile_iters: int = 1,
        activities: Sequence[str] = ("cpu", "cuda"),
        schedule: Mapping[str, Any] | None = None,
        on_trace_ready: Callable[..., Any] | Mapping[str, Any] | None = None,
        record_shapes: bool = False,  # noqa: FBT001, FBT002
        profile_memory: bool = False,  # noqa: FBT001, FBT002
        with_stack: bool = False,  # noqa: FBT001, FBT002
        with_flops: bool = False,  # noqa: FBT001, FBT002
        json_trace_path: str | None = None,
    ) -> None:
        if not isinstance(by_epoch, bool):
            raise TypeError(f"ProfilerHook(by_epoch={by_epoch!r}): give True or False.")
        if isinstance(profile_iters, bool) or not isinstance(profile_iters, int) or profile_iters < 1:
            raise ConfigError(f"ProfilerHook(profile_iters={profile_iters!r}): give an int of at least 1.")
        if isinstance(activities, str) or not set(map(str.lower, activities)) <= set(_ACTIVITIES):
            raise ConfigError(f"ProfilerHook(activities={activities!r}): give a list of 'cpu' and 'cuda'.")
        if schedule is not None:
            check_options(profiler.schedule, schedule)
        if isinstance(on_trace_ready, Mapping):
            if on_trace_ready.get("type") not in _HANDLERS:
                raise ConfigError(
                    f"ProfilerHook(on_trace_ready={on_trace_ready!r}): the type is 'log_trace' or 'tb_trace'."
                )
        elif on_trace_ready is not None and not callable(on_trace_ready):
            raise ConfigError(f"ProfilerHook(on_trace_ready={on_trace_ready!r}): give a function or a dict.")
        self.by_epoch = by_epoch
        self.profile_iters = profile_iters
        self.activities = [name.lower() for name in activities]
        self.schedule = None if schedule is None else profiler.schedule(**schedule)
        self.on_trace_ready = on_trace_ready
        self.json_trace_path = json_trace_path
        self._options: dict[str, Any] = {
            "record_shapes": record_shapes,
            "profile_memory": profile_memory,
            "with_stack": with_stack,
            "with_flops": with_flops,
        }
        self.profiler: profiler.profile | None = None
        self._left = 0

    def before_run(self, runner: Any) -> None:
        """Start profiling.

        Raises:
            ConfigError: the run is shorter than what is to be profiled.
        """
        last = runner.max_epochs if self.by_epoch else runner.max_iters
        if last is not None and last < self.profile_iters:
            raise ConfigError(
                f"ProfilerHook(profile_iters={self.profile_iters}): the run has {last} "
                f"{'epochs' if self.by_epoch else 'iterations'} only."
            )
        if runner.rank:
            return
        has = {"cpu": True, "cuda": torch.cuda.is_available()}
        self._left = self.profile_iters
        self.profiler = profiler.profile(
            activities=[_ACTIVITIES[name] for name in self.activities if has[name]],
            schedule=self.schedule,
            on_trace_ready=self._handler(runner),
            **self._options,
        )
        self.profiler.start()
        runner.logger.info(
            "profiling the first %d %s", self._left, "epochs" if self.by_epoch else "iterations"
        )

    @background
    def after_train_iter(self, runner: Any) -> BackgroundPart | None:  # type: ignore[override]
        """Tell the profiler; stop where enough iterations are done."""
        if self.profiler is None:
            return None
        self.profiler.step()
        return None if self.by_epoch else self._count(runner)

    @background
    def after_train_epoch(self, runner: Any) -> BackgroundPart | None:
        """Stop where enough epochs are done."""
        return self._count(runner) if self.by_epoch and self.profiler is not None else None

    @background
    def after_run(self, runner: Any) -> BackgroundPart | None:
        """Stop where the run has ended early."""
        return None if self.profiler is None else self._stop(runner)

    def close(self) -> None:
        """Stop the profiler of a run that failed; no trace is written to ``json_trace_path``."""
        stopped, self.profiler = self.profiler, None
        if stopped is not None:
            stopped.stop()

    def _count(self, runner: Any) -> BackgroundPart | None:
        self._left -= 1
        return None if self._left else self._stop(runner)

    def _stop(self, runner: Any) -> BackgroundPart | None:
        stopped, self.profiler = self.profiler, None
        assert stopped is not None  # noqa: S101 - callers asked
        runner.logger.info("the profiler stops; this may take a while")
        stopped.stop()
        if self.json_trace_path is None:
            return None
        write = partial(stopped.export_chrome_trace, self.json_trace_path)  # nobody else has it any more

        async def export() -> None:
            await anyio.to_thread.run_sync(write)

        return export

    def _handler(self, runner: Any) -> Callable[..., Any] | None:
        if not isinstance(self.on_trace_ready, Mapping):
            return self.on_trace_ready
        options = dict(self.on_trace_ready)
        if options.pop("type") == "log_trace":
            return lambda done: runner.logger.info("%s", done.key_averages().table(**options))
        folder = Path(runner.work_dir or ".", options.pop("dir_name", "tf_tracing_logs"))
        handler: Callable[..., Any] = profiler.tensorboard_trace_handler(str(folder), **options)
        return handler
