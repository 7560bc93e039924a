"""The Runner: a model, its data, an optimizer and hooks, put together; train, validate, test.

Decides the order of a run from its start to its end: hooks, checkpoint to load, loop, drain. The loops fire the
points inside, the executor runs the hooks. Whatever ends a run, what is in flight is seen to its end.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NoReturn

import torch
from torch import nn

from asynchooks import checkpoint as checkpoints
from asynchooks.errors import ConfigError, StorageDeniedError, StorageError
from asynchooks.execution import POINTS, HookExecutor, current_executor, priority_name
from asynchooks.instrument import Instrument
from asynchooks.optim import build_optim_wrapper, build_param_schedulers
from asynchooks.registry import HOOKS, LOG_PROCESSORS, MODELS
from asynchooks.runner import _config
from asynchooks.runner._context import RunContext, load_weights
from asynchooks.runner._evaluation import build_evaluators, check_evaluators
from asynchooks.runner._log_processor import LogProcessor
from asynchooks.runner._random import seed_everything
from asynchooks.runner._resume import Source, find_source, read_checkpoint
from asynchooks.runner._samplers import build_dataloader, check_dataloader

__all__ = ["Runner"]

logger = logging.getLogger(__name__)


class Runner(RunContext):
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
        param_scheduler: a scheduler or a list of them, as dicts or objects.
        val_evaluator, test_evaluator: metrics: MMEngine's protocol, torchmetrics', or a function of
            ``(outputs, batch)``; a list, or a dict of names to them. None gives the mean loss.
        default_hooks: changes of the six default hooks by name; None removes one.
        custom_hooks: further hooks, a list of objects and dicts.
        load_from: checkpoint whose weights the run starts with (and which ``resume=True`` continues from).
        resume: True or "auto": continue from the newest committed checkpoint of this run, or start anew where
            there is none; a URL: continue from that checkpoint.
        randomness: ``dict(seed=0, deterministic=False)``; a seed is set at construction and again when a training
            starts.
        device: where the model is moved; None leaves it where it is. Batches follow the model.
        log_processor: makes the log lines; an object or a dict.
        log_level: level of the run's logger.
        experiment_name: name of the run.
        default_scope: scope whose registries are asked first for a bare name.
        mode, ordering, max_in_flight, staging_budget, grace_period, instrument, points: the executor's, see
            `HookExecutor`.
        storage_options: fsspec's options for ``load_from`` and ``resume``.
        cfg: the configuration that all this comes from, noted in checkpoints as text.

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
        val_evaluator: Any = None,
        test_evaluator: Any = None,
        default_hooks: Mapping[str, Any] | None = None,
        custom_hooks: Sequence[Any] | None = None,
        load_from: str | os.PathLike[str] | None = None,
        resume: bool | str | os.PathLike[str] = False,
        randomness: Mapping[str, Any] | None = None,
        device: str | torch.device | None = None,
        log_processor: LogProcessor | Mapping[str, Any] | None = None,
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
        if isinstance(work_dir, Mapping) or not isinstance(work_dir, str | os.PathLike):
            raise ConfigError(f"work_dir is a folder or a URL, not {work_dir!r}.")
        super().__init__(work_dir, experiment_name)
        self.cfg = cfg
        self.logger.setLevel(log_level)
        self._scope = default_scope
        self._resume = resume
        self._load_from = None if load_from is None else os.fspath(load_from)
        self._loaded_from: str | None = None
        self._storage_options = dict(storage_options or {})
        self._random = _config.checked_randomness(randomness)
        self.seed = self._random["seed"]
        if self.seed is not None:
            seed_everything(self.seed, deterministic=self._random["deterministic"])
        self.log_processor = _log_processor(log_processor, default_scope)
        self.model = _model(model, default_scope, device)
        self._loaders = {"train": train_dataloader, "val": val_dataloader, "test": test_dataloader}
        self._evaluators = {"val": val_evaluator, "test": test_evaluator}
        self._loop_options: dict[str, tuple[Any, dict[str, Any]]] = {}
        self._loops: dict[str, Any] = {}
        self._configure_training(train_dataloader, train_cfg, optim_wrapper, param_scheduler)
        self._configure_evaluation("val", val_dataloader, val_cfg, val_evaluator)
        self._configure_evaluation("test", test_dataloader, test_cfg, test_evaluator)
        self._executor = HookExecutor(
            mode=mode,
            ordering=ordering,
            max_in_flight=max_in_flight,
            staging_budget=staging_budget,
            grace_period=grace_period,
            instrument=instrument,
            points=points,
        )
        self.register_hooks(default_hooks, custom_hooks)

    @classmethod
    def from_cfg(cls, cfg: Mapping[str, Any]) -> Runner:
        """Return the runner that a configuration describes; entries that are no argument are its own variables.

        Raises:
            UnknownOptionError: an entry looks like a misspelled argument.
        """
        known = {name: value for name, value in cfg.items() if name in _ARGUMENTS}
        near = [n for n in cfg if n not in known and _config.did_you_mean(str(n), _ARGUMENTS, cutoff=0.85)]
        _config.reject_unknown("Runner", near, _ARGUMENTS)
        return cls(**{"cfg": cfg, **known})

    # ---- what runs ----

    def train(self) -> nn.Module:
        """Train from the beginning, or from where a checkpoint says, to the end; return the model.

        Raises:
            BackgroundHookError, ExceptionGroup: a background part of a hook failed.
            ForeignCheckpointError, CorruptCheckpointError: the checkpoint to resume cannot be used.
        """
        loop = self.train_loop
        with self._session():
            if self.seed is not None:
                seed_everything(self.seed)
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

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Fire a hook point on all hooks. Training thread, inside of a run."""
        self._executor.fire(fn_name, self, **kwargs)

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

    # ---- checkpoints ----

    def save_checkpoint(
        self,
        out_dir: str | os.PathLike[str] | None = None,
        filename: str | None = None,
        *,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: Mapping[str, Any] | None = None,
        backend_args: Mapping[str, Any] | None = None,
    ) -> checkpoints.CheckpointInfo:
        """Save a checkpoint now and wait until it is committed. Training thread.

        Args:
            out_dir: folder or URL; the work folder where it is left out.
            filename: name of the file; ``epoch_{n}.pth`` or ``iter_{n}.pth`` where it is left out.
            save_optimizer: whether the optimizer's state is saved.
            save_param_scheduler: whether the schedulers' states are.
            meta: further entries of ``meta``.
            backend_args: fsspec's options for the store.
        """
        name = filename or (f"epoch_{self.epoch}.pth" if self.by_epoch else f"iter_{self.iter}.pth")
        with self._session():
            snapshot = self.capture(
                save_optimizer=save_optimizer, save_param_scheduler=save_param_scheduler, meta=meta
            )
            self._executor.drain(resources={"checkpoints"})
            target = os.fspath(out_dir) if out_dir is not None else self.work_dir
            checkpointer = checkpoints.Checkpointer(target, storage_options=dict(backend_args or {}))
            return checkpointer.save_sync(
                snapshot, name=name, step=self.iter, epoch=self.epoch, metrics={}, pointer="last"
            )

    def load_checkpoint(
        self, filename: str | os.PathLike[str], *, map_location: Any = "cpu", strict: bool = False
    ) -> dict[str, Any]:
        """Load the weights of a checkpoint; return its content. Training thread; drains first.

        Args:
            filename: path or URL.
            map_location: as of `torch.load`.
            strict: whether every weight must be there, and no other.

        Raises:
            CheckpointNotFoundError, CorruptCheckpointError, ForeignCheckpointError: it cannot be used.
        """
        source = Source(os.fspath(filename), self._storage_options)
        with self._session():
            content = self._read(source, map_location)
            load_weights(self.model, content["state_dict"], source.url, strict=strict)
        return content

    def resume(self, filename: str | os.PathLike[str], *, map_location: Any = "cpu") -> None:
        """Continue from a checkpoint: everything that a bit-identical continuation needs.

        Raises:
            CheckpointNotFoundError, CorruptCheckpointError, ForeignCheckpointError: it cannot be used.
        """
        source = Source(os.fspath(filename), self._storage_options)
        with self._session():
            self._resume_from(source, map_location)

    # ---- what hooks read ----

    @property
    def executor(self) -> HookExecutor:
        """The executor that runs the hooks."""
        return self._executor

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
        return "val" in self._loop_options

    @property
    def train_dataloader(self) -> Any:
        """The training loader; None where there is no training."""
        return self._loader("train")

    @property
    def val_dataloader(self) -> Any:
        """The validation loader; None where there is no validation."""
        return self._loader("val")

    @property
    def test_dataloader(self) -> Any:
        """The test loader; None where there is no test."""
        return self._loader("test")

    @property
    def by_epoch(self) -> bool:
        """Whether the training counts epochs; True where there is none."""
        return "train" not in self._loop_options or bool(
            getattr(self._loop_options["train"][0], "by_epoch", True)
        )

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        loop = self._loops.get("train")
        return 0 if loop is None else int(loop.epoch)

    @property
    def iter(self) -> int:
        """Iterations completed."""
        loop = self._loops.get("train")
        return 0 if loop is None else int(loop.iter)

    @property
    def max_epochs(self) -> int | None:
        """Epochs of the whole training; None where there is none yet."""
        loop = self._loops.get("train")
        return None if loop is None else loop.max_epochs

    @property
    def max_iters(self) -> int | None:
        """Iterations of the whole training; None where that is not known."""
        loop = self._loops.get("train")
        return None if loop is None else loop.max_iters

    def note_metrics(self, mode: str, metrics: Mapping[str, Any]) -> None:
        """Take the metrics of an evaluation. Called by the loops, before the hooks see them."""
        self.metrics = dict(metrics)
        if mode == "val" and "train" in self._loops:
            self._loops["train"].validation_pending = False

    # ---- private ----

    def _configure_training(self, loader: Any, cfg: Any, optim_wrapper: Any, param_scheduler: Any) -> None:
        parts = {"train_dataloader": loader, "train_cfg": cfg, "optim_wrapper": optim_wrapper}
        _config.check_complete("train", parts)
        if param_scheduler is not None and optim_wrapper is None:
            raise ConfigError("param_scheduler came without optim_wrapper: there is nothing to schedule.")
        self.optim_wrapper = None
        self.param_schedulers = []
        if optim_wrapper is None:
            return
        check_dataloader(loader, scope=self._scope)
        self._loop_options["train"] = _config.resolve_train_loop(cfg, scope=self._scope)
        self.optim_wrapper = build_optim_wrapper(self.model, optim_wrapper, scope=self._scope)
        self.param_schedulers = build_param_schedulers(
            self.optim_wrapper.optimizer, param_scheduler, scope=self._scope
        )

    def _configure_evaluation(self, mode: str, loader: Any, cfg: Any, evaluator: Any) -> None:
        parts = {f"{mode}_dataloader": loader, f"{mode}_cfg": cfg, f"{mode}_evaluator": evaluator}
        _config.check_complete(mode, parts, optional=(f"{mode}_cfg", f"{mode}_evaluator"))
        if loader is None:
            return
        check_dataloader(loader, scope=self._scope)
        check_evaluators(evaluator, scope=self._scope)
        self._loop_options[mode] = _config.resolve_eval_loop(
            {} if cfg is None else cfg, mode, scope=self._scope
        )

    def _loader(self, mode: str) -> Any:
        loader = self._loaders[mode]
        if isinstance(loader, Mapping):
            loader = self._loaders[mode] = build_dataloader(loader, seed=self.seed or 0, scope=self._scope)
        return loader

    def _loop(self, mode: str) -> Any:
        if mode not in self._loops:
            if mode not in self._loop_options:
                needed = (
                    "train_dataloader, train_cfg and optim_wrapper"
                    if mode == "train"
                    else f"{mode}_dataloader"
                )
                raise ConfigError(f"This Runner cannot {mode}: it was built without {needed}.")
            target, options = self._loop_options[mode]
            if mode != "train":
                options = {
                    "evaluators": build_evaluators(self._evaluators[mode], scope=self._scope),
                    **options,
                }
            self._loops[mode] = target(runner=self, dataloader=self._loader(mode), **options)
        return self._loops[mode]

    def _evaluate(self, mode: str) -> dict[str, Any]:
        loop = self._loop(mode)
        with self._session():
            self.call_hook("before_run")
            self._load_weights()
            metrics: dict[str, Any] = loop.run()
            self._executor.drain()
            self.call_hook("after_run")
        return metrics

    @contextmanager
    def _session(self) -> Iterator[None]:
        """Have the executor open; what is in flight is seen to its end where this opened it."""
        if current_executor() is self._executor:
            yield
            return
        self._make_folder()
        with self._executor:
            yield

    def _make_folder(self) -> None:
        if self.log_dir is None:
            return
        try:
            os.makedirs(self.work_dir, exist_ok=True)
        except PermissionError as error:
            raise StorageDeniedError(f"work_dir={self.work_dir!r} cannot be made: {error}.") from error
        except OSError as error:
            raise StorageError(f"work_dir={self.work_dir!r} cannot be made: {error}.") from error
        if not self.logger.hasHandlers():  # nobody has configured logging: show the run on the terminal
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            logging.getLogger("asynchooks").addHandler(handler)

    def _load_or_resume(self) -> None:
        """Take up what load_from and resume say; done by the first training alone."""
        resume, self._resume = self._resume, False
        load_from, self._load_from = self._load_from, None
        source = find_source(self, resume, load_from, self._storage_options) if resume else None
        if source is not None:
            self._resume_from(source, "cpu")
        elif load_from is not None:
            self.load_checkpoint(load_from)
            self.logger.info("starting with the weights of %s", load_from)

    def _load_weights(self) -> None:
        """Evaluate the weights that load_from and resume name, if nothing was trained or loaded before."""
        source = (
            find_source(self, self._resume, self._load_from, self._storage_options) if self._resume else None
        )
        url = self._load_from if source is None else source.url
        if url is not None and url != self._loaded_from:
            self.load_checkpoint(url)
            self._loaded_from = url

    def _read(self, source: Source, map_location: Any) -> dict[str, Any]:
        self._executor.drain()
        content = read_checkpoint(source, map_location)
        self.call_hook("after_load_checkpoint", checkpoint=content)
        return content

    def _resume_from(self, source: Source, map_location: Any) -> None:
        _ = self.train_loop
        content = self._read(source, map_location)
        self._take_up(content, source.url)
        self.logger.info("resumed from %s: epoch %d, iteration %d", source.url, self.epoch, self.iter)

    def _position(self) -> dict[str, Any] | None:
        loop = self._loops.get("train")
        return None if loop is None else loop.position()

    def _load_position(self, checkpoint: Mapping[str, Any]) -> None:
        resume = checkpoint.get("resume") or {}
        if resume.get("position") is not None:
            self.train_loop.load_position(resume["position"], resume["rng"])
            return
        meta = checkpoint.get("meta") or {}
        logger.warning(
            "the checkpoint holds counters only: random numbers and the order of the data start anew"
        )
        self.train_loop.load_counters(meta.get("epoch", 0), meta.get("iter", 0))


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
