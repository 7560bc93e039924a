"""How hooks come to MMCV's runners: one by one, or from the training's configuration.

Decides names, defaults and priorities as MMCV does: ``policy="step"`` is ``StepLrUpdaterHook``. Configurations are
never changed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from asynchooks.errors import ConfigError, HookDefinitionError
from asynchooks.execution import HookExecutor, priority_name
from asynchooks.execution._convention import MMCV_POINTS, needs_mmcv
from asynchooks.registry import MMCV_HOOKS

__all__ = ["HookRegistration"]

Config = Any  # a hook, a dict of its options, or None

_DEFAULT_INTERVAL = 10


class HookRegistration(ABC):
    """Registers hooks with the executor of a run."""

    @property
    @abstractmethod
    def executor(self) -> HookExecutor:
        """The executor that runs the hooks."""

    @property
    @abstractmethod
    def by_epoch(self) -> bool:
        """Whether the training counts epochs."""

    @property
    def hooks(self) -> list[Any]:
        """The registered hooks, in order of execution."""
        return list(self.executor.hooks)

    _hooks = hooks

    def register_hook(
        self, hook: Any, priority: int | str | None = None, *, mode: Literal["background"] | None = None
    ) -> None:
        """Register a hook, or build it from a dict. One instance may serve several runners.

        Methods may take the runner alone, as MMCV's do, or the point's arguments, as MMEngine's.

        Args:
            hook: a hook, or a dict for the registry MMCV_HOOKS, which is not changed.
            priority: wins over ``hook["priority"]`` and over the class's own, which is "NORMAL" by default.
            mode: "background" runs a blocking hook's methods in a worker thread.
        """
        if isinstance(hook, Mapping):
            options = dict(hook)
            own = options.pop("priority", None)
            hook, priority = MMCV_HOOKS.build(options), own if priority is None else priority
        _take_convention(hook)
        self.executor.register(hook, priority=priority, mode=mode)

    def register_hook_from_cfg(self, hook_cfg: Mapping[str, Any]) -> None:
        """Build a hook from a dict with ``type`` and perhaps ``priority``, and register it."""
        if not isinstance(hook_cfg, Mapping):
            raise ConfigError(f"A hook is configured by a dict such as dict(type=...), not {hook_cfg!r}.")
        self.register_hook(hook_cfg)

    def register_lr_hook(self, lr_config: Config) -> None:
        """Register what sets the learning rate: ``dict(policy="step", step=[8, 11])``, a hook, or None."""
        self._register(self._with_policy("lr_config", lr_config, "LrUpdaterHook"), "VERY_HIGH")

    def register_momentum_hook(self, momentum_config: Config) -> None:
        """Register what sets the momentum: ``dict(policy="cyclic", ...)``, a hook, or None."""
        self._register(self._with_policy("momentum_config", momentum_config, "MomentumUpdaterHook"), "HIGH")

    def register_optimizer_hook(self, optimizer_config: Config) -> None:
        """Register what steps the optimizer; an `OptimizerHook` where ``type`` is left out."""
        self._register(_typed(optimizer_config, "OptimizerHook"), "ABOVE_NORMAL")

    def register_checkpoint_hook(self, checkpoint_config: Config) -> None:
        """Register what saves checkpoints; a `CheckpointHook` where ``type`` is left out."""
        self._register(_typed(checkpoint_config, "CheckpointHook"), "NORMAL")

    def register_timer_hook(self, timer_config: Config) -> None:
        """Register what measures iterations."""
        self._register(_typed(timer_config, "IterTimerHook"), "LOW")

    def register_logger_hooks(self, log_config: Mapping[str, Any] | None) -> None:
        """Register loggers: ``dict(interval=100, hooks=[dict(type="TextLoggerHook")])``; they share the interval."""
        if log_config is None:
            return
        if not isinstance(log_config, Mapping) or not isinstance(log_config.get("hooks"), list | tuple):
            raise ConfigError(
                f"log_config is a dict such as dict(interval=100, hooks=[dict(type='TextLoggerHook')]), not "
                f"{log_config!r}."
            )
        interval = log_config.get("interval", _DEFAULT_INTERVAL)
        for hook in log_config["hooks"]:
            self._register(hook, "VERY_LOW", interval=interval)

    def register_profiler_hook(self, profiler_config: Config) -> None:
        """Register a profiler; a `ProfilerHook` where ``type`` is left out."""
        self._register(_typed(profiler_config, "ProfilerHook"), None)

    def register_custom_hooks(self, custom_config: Any) -> None:
        """Register hooks: one or a list of them, as objects or dicts with ``type`` and perhaps ``priority``."""
        if custom_config is None:
            return
        for hook in custom_config if isinstance(custom_config, list | tuple) else [custom_config]:
            self.register_hook(hook)

    def register_training_hooks(
        self,
        lr_config: Config,
        optimizer_config: Config = None,
        checkpoint_config: Config = None,
        log_config: Mapping[str, Any] | None = None,
        momentum_config: Config = None,
        timer_config: Config = {"type": "IterTimerHook"},  # noqa: B006 - MMCV's default; nothing changes it
        custom_hooks_config: Any = None,
    ) -> None:
        """Register what a training needs, each from a hook, a dict of its options, or None.

        In their order: learning rate (VERY_HIGH), momentum (HIGH), optimizer (ABOVE_NORMAL), checkpoints (NORMAL),
        timer (LOW), loggers (VERY_LOW), and the custom hooks with their own priorities. In an iteration-based run,
        learning rate, checkpoints and loggers count iterations unless their ``by_epoch`` says otherwise.
        """
        if not self.by_epoch:
            lr_config, checkpoint_config = _by_iter(lr_config), _by_iter(checkpoint_config)
            if isinstance(log_config, Mapping) and isinstance(log_config.get("hooks"), list | tuple):
                log_config = {**log_config, "hooks": [_by_iter(hook) for hook in log_config["hooks"]]}
        self.register_lr_hook(lr_config)
        self.register_momentum_hook(momentum_config)
        self.register_optimizer_hook(optimizer_config)
        self.register_checkpoint_hook(checkpoint_config)
        self.register_timer_hook(timer_config)
        self.register_logger_hooks(log_config)
        self.register_custom_hooks(custom_hooks_config)

    def get_hook_info(self) -> str:
        """Return which hooks run at which of MMCV's points, in their order."""
        sections = []
        for point in MMCV_POINTS:
            registrations = [step.registration for step in self.executor.plan(point).steps]
            lines = [f"({priority_name(r.priority):<12}) {r.name:<35}" for r in registrations]
            if lines:
                sections.append("\n".join([f"{point}:", *lines, " -------------------- "]))
        return "\n".join(sections)

    def _register(self, hook: Config, priority: str | None, **provided: Any) -> None:
        """Register a hook, or what a dict describes, with MMCV's priority for its kind."""
        if hook is None:
            return
        if isinstance(hook, Mapping):
            options = dict(hook)
            priority = options.pop("priority", priority)
            hook = MMCV_HOOKS.build(options, **provided)
        self.register_hook(hook, priority)

    @staticmethod
    def _with_policy(what: str, config: Config, suffix: str) -> Config:
        """Return a config whose ``policy`` has become the ``type`` of a hook."""
        if not isinstance(config, Mapping):
            return config
        options = dict(config)
        policy = options.pop("policy", None)
        if policy is None and "type" in options:
            return options
        if not isinstance(policy, str):
            raise ConfigError(
                f"{what} names its policy, as in {what}=dict(policy='step', step=[8, 11]); it is {dict(config)!r}."
            )
        # A name in lower case gets a capital; "CosineAnnealing" has two already and stays.
        return {"type": f"{policy.title() if policy == policy.lower() else policy}{suffix}", **options}


def _typed(config: Config, kind: str) -> Config:
    return {"type": kind, **config} if isinstance(config, Mapping) else config


def _by_iter(config: Config) -> Config:
    return {"by_epoch": False, **config} if isinstance(config, Mapping) else config


def _take_convention(hook: Any) -> None:
    """Have a hook that names no convention, and needs MMCV's, follow it."""
    if isinstance(hook, type) or getattr(hook, "convention", None) == "mmcv" or not needs_mmcv(hook):
        return
    try:
        hook.convention = "mmcv"
    except AttributeError as error:
        raise HookDefinitionError(
            f"{type(hook).__name__} has methods in MMCV's manner; derive it from asynchooks.hooks.mmcv.Hook."
        ) from error
