"""Profiles the beginning of a training with PyTorch's profiler.

The profiler begins and ends on the training thread. What is made of a finished trace - tables, files - is made in the
background, from an object that no later profile changes.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import anyio
import torch

from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, Hook, background
from asynchooks.hooks.profiler._traces import TraceHandler, check_handler, handler_for
from asynchooks.registry import HOOKS

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart

__all__ = ["ProfilerHook"]


@HOOKS.register_module()
class ProfilerHook(Hook):
    """Profiles the first epoch, or the first iterations, of a training: of a resumed one, of what it trains itself.

    Begins in ``before_train``, so a validation or test on its own is not profiled.

    Args:
        by_epoch: whether ``profile_times`` counts epochs (else iterations).
        profile_times: how many; an epoch is enough for one, so more are refused.
        activity_with_cpu: whether operators on the CPU are recorded.
        activity_with_cuda: whether CUDA kernels are.
        schedule: arguments of `torch.profiler.schedule`.
        on_trace_ready: what a finished trace is given to, in the background: a function of the profiler,
            ``dict(type="log_trace", ...)`` with the arguments of its table, which is logged, or
            ``dict(type="tb_trace", dir_name=..., worker_name=...)`` for TensorBoard; a relative folder is one in the
            run's log folder.
        record_shapes: whether the shapes of inputs are recorded.
        profile_memory: whether allocations are.
        with_stack: whether file and line of each operator are.
        with_flops: whether operations are counted.
        json_trace_path: file for the last trace in Chrome's format.

    Raises:
        ConfigError, TypeError: a wrong value.
    """

    priority = "VERY_LOW"
    changes_state = False

    def __init__(
        self,
        *,
        by_epoch: bool = True,
        profile_times: int = 1,
        activity_with_cpu: bool = True,
        activity_with_cuda: bool = False,
        schedule: Mapping[str, Any] | None = None,
        on_trace_ready: Callable[[Any], object] | Mapping[str, Any] | None = None,
        record_shapes: bool = False,
        profile_memory: bool = False,
        with_stack: bool = False,
        with_flops: bool = False,
        json_trace_path: str | None = None,
    ) -> None:
        if isinstance(profile_times, bool) or not isinstance(profile_times, int) or profile_times < 1:
            raise ConfigError(f"ProfilerHook(profile_times={profile_times!r}): give an int >= 1.")
        if by_epoch and profile_times > 1:
            raise ConfigError(
                f"ProfilerHook(by_epoch=True, profile_times={profile_times}): a profiler slows the training down and "
                f"one epoch shows what there is to see; profile 1 epoch, or iterations with by_epoch=False."
            )
        if not (activity_with_cpu or activity_with_cuda):
            raise ConfigError(
                "ProfilerHook: nothing is recorded; set activity_with_cpu or activity_with_cuda."
            )
        check_handler(on_trace_ready)
        self.by_epoch = by_epoch
        self.profile_times = profile_times
        self.on_trace_ready = on_trace_ready
        self.json_trace_path = json_trace_path
        kinds = torch.profiler.ProfilerActivity
        self._options: dict[str, Any] = {
            "activities": [kinds.CPU] * activity_with_cpu + [kinds.CUDA] * activity_with_cuda,
            "schedule": None if schedule is None else torch.profiler.schedule(**schedule),
            "record_shapes": record_shapes,
            "profile_memory": profile_memory,
            "with_stack": with_stack,
            "with_flops": with_flops,
        }
        # A function of the user's may touch anything.
        self.effects = None if callable(on_trace_ready) else Effects(writes={"traces"})
        self._profiler: Any = None
        self._handler: TraceHandler | None = None
        self._ready: list[Any] = []
        self._done = 0

    def before_train(self, runner: Any) -> None:
        """Begin to profile.

        Raises:
            ConfigError: the training is shorter than what is to be profiled.
        """
        limit = runner.max_epochs if self.by_epoch else runner.max_iters
        if limit is not None and limit < self.profile_times:
            unit = "epochs" if self.by_epoch else "iterations"
            raise ConfigError(
                f"ProfilerHook(profile_times={self.profile_times}): the training has {limit} {unit} only."
            )
        self._stop()  # of a loop of one's own that failed
        self._handler = handler_for(self.on_trace_ready, runner)
        self._ready, self._done = [], 0
        self._profiler = torch.profiler.profile(on_trace_ready=self._take, **self._options)
        self._profiler.start()
        runner.logger.info("ProfilerHook: profiling.")

    @background
    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> BackgroundPart | None:
        """Count an iteration, and hand over what is finished by it."""
        del batch_idx, data_batch, outputs
        if self._profiler is None:
            return None
        self._profiler.step()
        self._done += 1
        if not self.by_epoch and self._done == self.profile_times:
            return self._finish(runner)
        return self._handing_over(runner.logger)

    @background
    def after_train_epoch(self, runner: Any) -> BackgroundPart | None:
        """End, where nothing has ended it before: an epoch is the longest that is profiled."""
        return self._finish(runner)

    @background
    def after_train(self, runner: Any) -> BackgroundPart | None:
        """End, where the training ended before an epoch did."""
        return self._finish(runner)

    def close(self) -> None:
        """Stop the profiler of a training that failed; its traces are dropped."""
        self._stop()
        self._ready = []

    def _finish(self, runner: Any) -> BackgroundPart | None:
        profile = self._stop()
        if profile is None:
            return None
        path = self.json_trace_path if profile.profiler is not None else None
        return self._handing_over(runner.logger, profile if path else None, path)

    def _stop(self) -> Any:
        profile, self._profiler = self._profiler, None
        if profile is not None:
            profile.stop()
        return profile

    def _take(self, profile: Any) -> None:
        """Keep a finished trace. Called by the profiler, which makes another inner object for the next one."""
        self._ready.append(copy.copy(profile))

    def _handing_over(
        self, logger: logging.Logger, last: Any = None, path: str | None = None
    ) -> BackgroundPart | None:
        ready, self._ready = self._ready, []
        handler = self._handler
        if last is None and (handler is None or not ready):
            return None

        def export() -> None:
            for profile in ready:
                if handler is not None:
                    handler(profile)
            if last is not None:
                last.export_chrome_trace(path)
                logger.info("ProfilerHook: the trace is in %s.", path)

        async def export_behind() -> None:
            await anyio.to_thread.run_sync(export)

        return export_behind
