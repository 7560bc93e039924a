"""A run that a configuration of MMCV 1.x's form describes: `model`, `data`, `optimizer`, `lr_config`, `runner` ...

Puts together what MMDetection 2.x's training script does: loaders, runner, training hooks, evaluation, resuming.
Decides which entries of such a configuration are read, and names those that are not.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from asynchooks.config import Config, import_modules
from asynchooks.distributed import world_size
from asynchooks.errors import ConfigError, did_you_mean
from asynchooks.registry import MODELS
from asynchooks.runner._config import reject_unknown
from asynchooks.runner._configuration import keep_config
from asynchooks.runner._random import seed_everything
from asynchooks.runner._resume import find_source
from asynchooks.runner._samplers import build_dataloader, check_dataloader
from asynchooks.runner.mmcv._build import build_runner

if TYPE_CHECKING:
    from torch import nn

    from asynchooks.execution import HookExecutor

__all__ = ["ConfiguredRun"]

logger = logging.getLogger(__name__)

_ENTRIES = (
    *("model", "data", "optimizer", "optimizer_config", "fp16", "lr_config", "momentum_config", "runner"),
    *(
        "total_epochs",
        "checkpoint_config",
        "log_config",
        "log_level",
        "timer_config",
        "custom_hooks",
        "evaluation",
    ),
    *(
        "workflow",
        "load_from",
        "resume_from",
        "resume",
        "work_dir",
        "seed",
        "deterministic",
        "device",
        "meta",
    ),
    *("mode", "ordering", "max_in_flight", "staging_budget", "grace_period", "storage_options"),
    *("custom_imports",),
)
_NO_EFFECT = (
    "dist_params",
    "opencv_num_threads",
    "mp_start_method",
    "auto_scale_lr",
    "gpu_ids",
    "cudnn_benchmark",
)
_EXECUTOR = ("mode", "ordering", "max_in_flight", "staging_budget", "grace_period", "storage_options")
_LOADER_NAMES = {"samples_per_gpu": "batch_size", "workers_per_gpu": "num_workers"}


class ConfiguredRun:
    """A runner of MMCV's kind with its hooks registered, and the loaders that it trains with.

    Args:
        cfg: a Config or dict: ``model``, ``data`` (``samples_per_gpu``, ``workers_per_gpu``, ``train``, ``val``),
            ``optimizer``, ``optimizer_config``, ``fp16``, ``lr_config``, ``momentum_config``, ``runner`` or
            ``total_epochs``, ``checkpoint_config``, ``log_config``, ``custom_hooks``, ``evaluation``, ``workflow``,
            ``load_from``, ``resume_from`` (``resume="auto"`` looks for the newest), ``work_dir``, ``seed``; and the
            executor's options.

    Attributes:
        runner: the runner.

    Raises:
        ConfigError: an entry is missing or wrong.
        UnknownOptionError: an entry looks like a misspelled one, or a class takes no such argument.
    """

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        _check(cfg)
        ranks = max(world_size(), int(os.environ.get("WORLD_SIZE") or 1))
        if ranks > 1 and isinstance(cfg.get("model"), Mapping):
            raise ConfigError(
                f"{ranks} ranks would each train a model of their own: a configuration of MMCV's form trains in one "
                "process. Start it without torchrun; or write it in MMEngine's form, for which Runner wraps the "
                "model; or build EpochBasedRunner with a model that you have wrapped."
            )
        if cfg.get("custom_imports"):
            import_modules(cfg["custom_imports"], source=getattr(cfg, "filename", None))
        self._cfg = cfg
        self._seed = cfg.get("seed")
        if self._seed is not None:
            seed_everything(self._seed, deterministic=bool(cfg.get("deterministic", False)))
        self._phases = [tuple(phase) for phase in cfg.get("workflow") or [("train", 1)]]
        for mode, _ in self._phases:
            check_dataloader(self._loader_cfg(mode))
        self.runner = _runner(cfg)
        self._register_hooks()

    @classmethod
    def from_cfg(cls, cfg: Mapping[str, Any]) -> ConfiguredRun:
        """Return the run that a configuration describes."""
        return cls(cfg)

    @property
    def executor(self) -> HookExecutor:
        """The executor of the runner's hooks."""
        executor: HookExecutor = self.runner.executor
        return executor

    def train(self) -> nn.Module:
        """Train from the beginning, or from where a checkpoint says, to the end; return the model."""
        runner, cfg = self.runner, self._cfg
        source = cfg.get("resume_from") or cfg.get("resume")
        if source in (True, "auto"):
            found = find_source(runner, "auto", None, cfg.get("storage_options") or {}, to_train=True)
            source = None if found is None else found.url
        if source:
            runner.resume(source)
        elif cfg.get("load_from"):
            runner.load_checkpoint(cfg["load_from"])
        keep_config(cfg, runner.log_dir, runner.timestamp)
        runner.run([self._loader(mode) for mode, _ in self._phases], self._phases)
        model: nn.Module = runner.model
        return model

    def _register_hooks(self) -> None:
        cfg = self._cfg
        self.runner.register_training_hooks(
            cfg.get("lr_config"),
            _optimizer_config(cfg),
            cfg.get("checkpoint_config"),
            cfg.get("log_config"),
            cfg.get("momentum_config"),
            cfg.get("timer_config", {"type": "IterTimerHook"}),
            cfg.get("custom_hooks"),
        )
        evaluation = cfg.get("evaluation")
        if evaluation is not None and cfg["data"].get("val") is not None:
            options = {"type": "EvalHook", "by_epoch": self.runner.by_epoch, **evaluation}
            self.runner.register_hook({**options, "dataloader": self._loader("val")}, priority="LOW")

    def _loader(self, mode: str) -> Any:
        return build_dataloader(self._loader_cfg(mode), seed=self._seed or 0)

    def _loader_cfg(self, mode: str) -> dict[str, Any]:
        """Return the arguments of a DataLoader: ``data``'s own, and those of ``data["train_dataloader"]``."""
        data = self._cfg["data"]
        if not isinstance(data, Mapping) or mode not in data:
            raise ConfigError(
                f"data is a dict with the data set of each phase; {mode!r} is missing in {data!r}."
            )
        is_train = mode == "train"
        shared = {"samples_per_gpu": data.get("samples_per_gpu", 1) if is_train else 1}
        shared["workers_per_gpu"] = data.get("workers_per_gpu", 0)
        options = {"dataset": data[mode], "shuffle": is_train, **shared, **data.get(f"{mode}_dataloader", {})}
        return {_LOADER_NAMES.get(name, name): value for name, value in options.items()}


def _runner(cfg: Mapping[str, Any]) -> Any:
    model = cfg["model"]
    built = MODELS.build(model) if isinstance(model, Mapping) else model
    options = cfg.get("runner") or {"type": "EpochBasedRunner", "max_epochs": cfg["total_epochs"]}
    text = cfg.pretty_text if isinstance(cfg, Config) else str(dict(cfg))
    name = PurePath(getattr(cfg, "filename", None) or "run").name
    runner = build_runner(
        options,
        {
            "model": built if cfg.get("device") is None else built.to(cfg["device"]),
            "optimizer": cfg.get("optimizer"),
            "work_dir": cfg["work_dir"],
            "meta": {"exp_name": name, "config": text, "seed": cfg.get("seed"), **(cfg.get("meta") or {})},
            **{name: cfg[name] for name in _EXECUTOR if name in cfg},
        },
    )
    runner.logger.setLevel(cfg.get("log_level", "INFO"))
    return runner


def _optimizer_config(cfg: Mapping[str, Any]) -> Any:
    """Return ``optimizer_config``, which ``fp16`` makes a `Fp16OptimizerHook`."""
    options, fp16 = cfg.get("optimizer_config"), cfg.get("fp16")
    if fp16 is None or not isinstance(options, Mapping | None):
        return options
    return {"type": "Fp16OptimizerHook", **(options or {}), **fp16}


def _check(cfg: Mapping[str, Any]) -> None:
    idle = [name for name in cfg if name in _NO_EFFECT]
    if idle:
        logger.warning("entries of the configuration that have no effect here: %s", ", ".join(idle))
    near = [
        name
        for name in cfg
        if name not in (*_ENTRIES, *_NO_EFFECT) and did_you_mean(str(name), _ENTRIES, cutoff=0.85)
    ]
    reject_unknown("A configuration of MMCV's form", near, _ENTRIES)
    for name in ("model", "data", "work_dir"):
        if cfg.get(name) is None:
            raise ConfigError(f"The configuration has no {name!r}.")
    if cfg.get("runner") is None and cfg.get("total_epochs") is None:
        raise ConfigError("The configuration has no runner=dict(type='EpochBasedRunner', max_epochs=...).")
