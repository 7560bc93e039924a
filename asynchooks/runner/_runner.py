"""The Runner: a model, its data, an optimizer and hooks, put together; train, validate, test.

Decides the order of a run from its start to its end: hooks, checkpoint to load, loop, drain. The loops fire the
points inside, the executor runs the hooks. Whatever ends a run, what is in flight is seen to its end.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from torch import nn

from asynchooks.distributed import is_first_rank
from asynchooks.errors import ConfigError
from asynchooks.execution import POINTS, HookExecutor, priority_name
from asynchooks.registry import HOOKS, LOG_PROCESSORS, MODELS, RUNNERS
from asynchooks.runner import _config
from asynchooks.runner._configuration import arguments_of, keep_config
from asynchooks.runner._launch import join_ranks
from asynchooks.runner._log_processor import LogProcessor
from asynchooks.runner._logs import set_log_level, show_logs
from asynchooks.runner._optimization import build_optimization
from asynchooks.runner._parts import Parts
from asynchooks.runner._random import seed_everything
from asynchooks.runner._resumable import ResumableRun
from asynchooks.runner._strategy import check_strategy, parallel
from asynchooks.runner._visualizer import visualizer_of

if TYPE_CHECKING:
    import torch

    from asynchooks.instrument import Instrument

__all__ = ["Runner"]


@RUNNERS.register_module()
class Runner(ResumableRun):
    """Trains, validates and tests a model, and calls hooks on the way.

    Everything that is built from a dict may be given as an object. Every name and option is checked here;
    data sets are built when they are first needed. A DataLoader, model or hook that was given stays yours.

    Args:
        model: a module with ``train_step(data, optim_wrapper)`` / ``val_step(data)`` / ``test_step(data)``, or a
            plain one whose ``forward(batch)`` returns a loss; or a dict for the registry MODELS.
        work_dir: folder (or URL) for logs and checkpoints.
        train_dataloader, val_dataloader, test_dataloader: loaders, or their arguments as dicts.
        train_cfg: ``dict(by_epoch=True, max_epochs=3)`` or ``dict(by_epoch=False, max_iters=1000)``, with
            ``val_interval``, ``val_begin``, ``dynamic_intervals``.
        val_cfg, test_cfg: options of the loops, usually ``dict()``, which may be left out.
        optim_wrapper: ``dict(optimizer=dict(type="SGD", lr=0.1), accumulative_counts=1, clip_grad=None)``, an
            optimizer, or an OptimWrapper.
        param_scheduler: a scheduler or a list of them, as dicts or objects; for several optimizers, a dict of names.
        auto_scale_lr: ``dict(base_batch_size=16, enable=True)`` scales the learning rates with the batch size.
        val_evaluator, test_evaluator: metrics: MMEngine's protocol, torchmetrics', or a function of
            ``(outputs, batch)``; a list, or a dict of names to them. None gives the mean loss.
        default_hooks: changes of the six default hooks by name; None removes one.
        custom_hooks: further hooks, a list of objects and dicts.
        strategy: how ranks share the model: ``dict(type="DDP", ...)``, ``dict(type="FSDP2", ...)`` (or an object with
            ``wrap(model)``); DDP where it is left out. A model that is wrapped already is used as it is.
        launcher: "pytorch", "none", or None: under ``torchrun`` the process group is made here, if there is none.
        env_cfg: MMEngine's dict, of which ``dist_cfg=dict(backend=..., timeout=...)`` is used.
        load_from: checkpoint whose weights the run starts with (and which ``resume=True`` continues from).
        resume: True or "auto": continue from the newest committed checkpoint of this run, or start anew where
            there is none; a URL: continue from that checkpoint.
        randomness: ``dict(seed=0, deterministic=False, diff_rank_seed=False)``; a seed is set at construction and
            again when a training starts.
        device: where the model is moved; None leaves it where it is, or moves it to the rank's own accelerator.
            Batches follow the model.
        log_processor: makes the log lines; an object or a dict.
        visualizer: ``dict(type="Visualizer", vis_backends=[...])`` or an object; None writes to ``log_dir/vis_data``.
        log_level: level of the run's logger.
        experiment_name: name of the run.
        default_scope: scope whose registries are asked first for a bare name.
        mode, ordering, max_in_flight, staging_budget, grace_period, instrument, points: the executor's, see
            `HookExecutor`.
        storage_options: fsspec's options for ``load_from`` and ``resume``.
        cfg: the configuration that all this comes from, noted in checkpoints as text, and kept beside the logs.

    Raises:
        UnknownOptionError, UnknownNameError, ConfigError: an argument is wrong; the message names the right form.
    """

    def __init__(
        self,
        model: nn.Module | Mapping[str, Any],
        work_dir: str | os.PathLike[str],
        *,
        train_dataloader: Any = None,
        val_dataloader: Any = None,
        test_dataloader: Any = None,
        train_cfg: Mapping[str, Any] | None = None,
        val_cfg: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        optim_wrapper: Any = None,
        param_scheduler: Any = None,
        auto_scale_lr: Mapping[str, Any] | None = None,
        val_evaluator: Any = None,
        test_evaluator: Any = None,
        default_hooks: Mapping[str, Any] | None = None,
        custom_hooks: Sequence[Any] | None = None,
        strategy: Any = None,
        launcher: str | None = None,
        env_cfg: Mapping[str, Any] | None = None,
        load_from: str | os.PathLike[str] | None = None,
        resume: bool | str | os.PathLike[str] = False,
        randomness: Mapping[str, Any] | None = None,
        device: str | torch.device | None = None,
        log_processor: LogProcessor | Mapping[str, Any] | None = None,
        visualizer: Any = None,
        log_level: int | str = "INFO",
        experiment_name: str | None = None,
        default_scope: str | None = None,
        mode: Literal["async", "sync"] = "async",
        ordering: Literal["priority", "strict"] = "priority",
        max_in_flight: int = 32,
        staging_budget: int = 4 * 2**30,
        grace_period: float = 60.0,
        instrument: Instrument | None = None,
        points: Sequence[str] = (),
        storage_options: Mapping[str, Any] | None = None,
        cfg: Any = None,
        **unknown: Any,
    ) -> None:
        _config.reject_unknown("Runner", unknown, _ARGUMENTS)
        if not isinstance(work_dir, str | os.PathLike):
            raise ConfigError(f"work_dir is a folder or a URL, not {work_dir!r}.")
        check_strategy(strategy, scope=default_scope)
        device = join_ranks(launcher, env_cfg, device)
        executor = HookExecutor(
            mode=mode,
            ordering=ordering,
            max_in_flight=max_in_flight,
            staging_budget=staging_budget,
            grace_period=grace_period,
            instrument=instrument,
            points=points,
        )
        super().__init__(
            work_dir,
            experiment_name,
            executor=executor,
            resume=resume,
            load_from=load_from,
            storage_options=storage_options,
        )
        self.cfg = cfg
        set_log_level(self.logger, log_level)
        self._scope = default_scope
        self.seed, self._seeding = _config.checked_randomness(randomness)
        seed_everything(self.seed, **self._seeding)
        self.log_processor = _log_processor(log_processor, default_scope)
        self.visualizer = visualizer_of(self, visualizer, default_scope)
        self.model = parallel(_model(model, default_scope, device), strategy, scope=default_scope)
        _config.check_complete(
            "train",
            {"train_dataloader": train_dataloader, "train_cfg": train_cfg, "optim_wrapper": optim_wrapper},
        )
        self._parts = Parts(
            {"train": train_dataloader, "val": val_dataloader, "test": test_dataloader},
            {"train": train_cfg, "val": val_cfg, "test": test_cfg},
            {"val": val_evaluator, "test": test_evaluator},
            scope=default_scope,
        )
        self.optim_wrapper, self.param_schedulers = build_optimization(
            self.model,
            self._parts,
            optim_wrapper,
            param_scheduler,
            auto_scale_lr,
            scope=default_scope,
            seed=self.seed or 0,
        )
        self.register_hooks(default_hooks, custom_hooks)

    @classmethod
    def from_cfg(cls, cfg: Mapping[str, Any]) -> Runner:
        """Return the runner that a Config or dict describes; entries that are no argument are its own variables.

        Raises:
            UnknownOptionError: an entry looks like a misspelled argument.
            ConfigError: the model or the work folder is missing, or the configuration has the form of MMCV 1.x.
            CustomImportError: a module of ``custom_imports`` cannot be imported.
        """
        return cls(**arguments_of(cfg, _ARGUMENTS))

    # ---- what runs ----

    def train(self) -> nn.Module:
        """Train from the beginning, or from where a checkpoint says, to the end; return the model.

        Raises:
            BackgroundHookError, ExceptionGroup: a background part of a hook failed.
            ForeignCheckpointError, CorruptCheckpointError: the checkpoint to resume cannot be used.
        """
        loop = self.train_loop
        show_logs(self.logger)
        with self._session():
            self._keep_config()
            seed_everything(self.seed, **self._seeding)
            self.call_hook("before_run")
            self._load_or_resume()
            self.optim_wrapper.initialize_count_status(self.model, loop.iter, loop.max_iters or -1)
            loop.run()
            self._executor.drain()
            self.call_hook("after_run")
        return self.model

    def val(self) -> dict[str, Any]:
        """Validate once and return the metrics."""
        return self._evaluate("val")

    def test(self) -> dict[str, Any]:
        """Test once and return the metrics."""
        return self._evaluate("test")

    def run(self, *_: Any, **__: Any) -> NoReturn:
        """Not here: this name belongs to the older runners."""
        raise ConfigError("Runner has no run(): call train(), val() or test().")

    # ---- hooks ----

    def register_hook(
        self, hook: Any, priority: int | str | None = None, *, mode: Literal["background"] | None = None
    ) -> None:
        """Register a hook, or build it from a dict.

        Args:
            hook: a hook, or a dict for the registry HOOKS, which is not changed.
            priority: wins over ``hook["priority"]`` and over the class's own.
            mode: "background" runs a blocking hook's methods in a worker thread.
        """
        if isinstance(hook, Mapping):
            options = dict(hook)
            own = options.pop("priority", None)
            priority = own if priority is None else priority
            hook = HOOKS.build(options, scope=self._scope)
        self._executor.register(hook, priority=priority, mode=mode)

    def register_hooks(
        self, default_hooks: Mapping[str, Any] | None = None, custom_hooks: Sequence[Any] | None = None
    ) -> None:
        """Register the default hooks, changed as given, and then the custom ones."""
        for hook in _config.chosen_default_hooks(default_hooks):
            self.register_hook(hook)
        for hook in _config.checked_custom_hooks(custom_hooks):
            self.register_hook(hook)

    @property
    def hooks(self) -> list[Any]:
        """The registered hooks, in order of execution."""
        return list(self._executor.hooks)

    def get_hooks_info(self) -> str:
        """Return which hooks run at which point, in their order."""
        sections = []
        for point in POINTS:
            steps = self._executor.plan(point).steps
            lines = [f"({priority_name(s.registration.priority):<12}) {s.registration.name}" for s in steps]
            if lines:
                sections.append("\n".join([f"{point}:", *lines]))
        return "\n\n".join(sections)

    # ---- what hooks read ----

    @property
    def train_loop(self) -> Any:
        """The training loop, built when first asked for."""
        return self._loop("train")

    @property
    def val_loop(self) -> Any:
        """The validation loop, built when first asked for."""
        return self._loop("val")

    @property
    def test_loop(self) -> Any:
        """The test loop, built when first asked for."""
        return self._loop("test")

    @property
    def has_validation(self) -> bool:
        """Whether a validation is configured."""
        return self._parts.has("val")

    @property
    def train_dataloader(self) -> Any:
        """The training loader; None where there is no training."""
        return self._parts.loader("train", seed=self.seed or 0)

    @property
    def val_dataloader(self) -> Any:
        """The validation loader; None where there is no validation."""
        return self._parts.loader("val", seed=self.seed or 0)

    @property
    def test_dataloader(self) -> Any:
        """The test loader; None where there is no test."""
        return self._parts.loader("test", seed=self.seed or 0)

    @property
    def by_epoch(self) -> bool:
        """Whether the training counts epochs; True where there is none."""
        return self._parts.counts_epochs

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        loop = self._parts.train_loop
        return 0 if loop is None else loop.epoch

    @property
    def iter(self) -> int:
        """Iterations completed."""
        loop = self._parts.train_loop
        return 0 if loop is None else loop.iter

    @property
    def max_epochs(self) -> int | None:
        """Epochs of the whole training; None where it was not begun."""
        return getattr(self._parts.train_loop, "max_epochs", None)

    @property
    def max_iters(self) -> int | None:
        """Iterations of the whole training; None where that is not known."""
        return getattr(self._parts.train_loop, "max_iters", None)

    def note_metrics(self, mode: str, metrics: Mapping[str, Any]) -> None:
        """Take the metrics of an evaluation. Called by the loops, before the hooks see them."""
        self.metrics = dict(metrics)
        loop = self._parts.train_loop
        if mode == "val" and loop is not None:
            loop.validation_pending = False

    # ---- private ----

    def _keep_config(self) -> None:
        if is_first_rank():
            keep_config(self.cfg, self.log_dir, self.timestamp)

    def _loop(self, mode: str) -> Any:
        return self._parts.loop(mode, self, seed=self.seed or 0)

    def _position(self) -> dict[str, Any] | None:
        loop = self._parts.train_loop
        return None if loop is None else loop.position()

    def _rng(self) -> Mapping[str, Any]:
        loop = self._parts.train_loop
        return super()._rng() if loop is None else loop.rng()

    def _evaluate(self, mode: str) -> dict[str, Any]:
        loop = self._loop(mode)
        show_logs(self.logger)
        with self._session():
            self._keep_config()
            self.call_hook("before_run")
            self._load_weights()
            metrics: dict[str, Any] = loop.run()
            self._executor.drain()
            self.call_hook("after_run")
        return metrics


_ARGUMENTS = tuple(
    name
    for name, parameter in inspect.signature(Runner).parameters.items()
    if parameter.kind is not inspect.Parameter.VAR_KEYWORD
)


def _log_processor(cfg: LogProcessor | Mapping[str, Any] | None, scope: str | None) -> LogProcessor:
    if not isinstance(cfg, Mapping):
        return cfg if cfg is not None else LogProcessor()
    built: LogProcessor = LOG_PROCESSORS.build({"type": "LogProcessor", **cfg}, scope=scope)
    return built


def _model(
    model: nn.Module | Mapping[str, Any], scope: str | None, device: str | torch.device | None
) -> nn.Module:
    built = MODELS.build(model, scope=scope) if isinstance(model, Mapping) else model
    if not isinstance(built, nn.Module):
        raise ConfigError(f"model is a torch.nn.Module or a dict(type=...), not {built!r}.")
    return built if device is None else built.to(device)
