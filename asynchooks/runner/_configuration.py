"""A run's configuration: the arguments that stand in it, and its copy beside the logs.

Decides what of a configuration is for the Runner and what its author's own, and says so where it looks like neither.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from asynchooks.config import Config, import_modules
from asynchooks.errors import ConfigError, did_you_mean
from asynchooks.runner import _config
from asynchooks.runner._strategy import strategy_of

__all__ = ["arguments_of", "has_mmcv_form", "keep_config"]

# What stands at the top of configurations for MMCV 1.x, and where it stands here.
_OF_MMCV = {
    "data": "train_dataloader=dict(batch_size=..., dataset=...), val_dataloader, test_dataloader",
    "optimizer": "optim_wrapper=dict(optimizer=dict(type=...))",
    "optimizer_config": "optim_wrapper=dict(clip_grad=..., accumulative_counts=...)",
    "fp16": "optim_wrapper=dict(type='AmpOptimWrapper', loss_scale=...)",
    "lr_config": "param_scheduler=[dict(type='MultiStepLR', milestones=[...])]",
    "momentum_config": "param_scheduler=[dict(type='CosineAnnealingMomentum', ...)]",
    "runner": "train_cfg=dict(by_epoch=True, max_epochs=...)",
    "total_epochs": "train_cfg=dict(by_epoch=True, max_epochs=...)",
    "checkpoint_config": "default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=...))",
    "log_config": "default_hooks=dict(logger=dict(type='LoggerHook', interval=...))",
    "evaluation": "val_evaluator=..., train_cfg=dict(val_interval=...)",
    "workflow": "val_dataloader=..., train_cfg=dict(val_interval=...)",
}
_OF_ITS_AUTHOR = ("data", "optimizer", "runner")  # variables that configurations for MMEngine have too
_WORK = ("train_dataloader", "val_dataloader", "test_dataloader", "train_cfg", "optim_wrapper")


def arguments_of(cfg: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return the arguments of a Runner that a configuration holds, after the imports that it asks for.

    Entries that are no argument are its author's own variables. Those that MMEngine's runner would use and this one
    does not are named in one warning.

    Raises:
        UnknownOptionError: an entry looks like a misspelled argument.
        ConfigError: it is no configuration of a run, or has the form of MMCV 1.x.
        CustomImportError: a module that it asks for cannot be imported.
    """
    if not isinstance(cfg, Mapping):
        raise ConfigError(f"Runner.from_cfg takes a Config or a dict of a Runner's arguments, not {cfg!r}.")
    try:
        _check(cfg, known)
    except ConfigError as error:
        if getattr(cfg, "filename", None):
            error.add_note(f"in the configuration {cfg.filename}")  # type: ignore[attr-defined]
        raise
    if cfg.get("custom_imports"):
        import_modules(cfg["custom_imports"], source=getattr(cfg, "filename", None))
    idle = [name for name in cfg if name in _OF_MMCV and name not in _OF_ITS_AUTHOR]
    _config.warn_of_no_effect(cfg, also=idle)
    strategy = strategy_of(cfg)
    meant = {} if strategy is None else {"strategy": strategy}
    return {"cfg": cfg, **meant, **{name: value for name, value in cfg.items() if name in known}}


def has_mmcv_form(cfg: Mapping[str, Any]) -> bool:
    """Whether a configuration is one for MMCV 1.x's runners: its entries, and none of the Runner's work."""
    return any(name in cfg for name in _OF_MMCV) and not any(name in cfg for name in _WORK)


def keep_config(cfg: Any, log_dir: str | None, timestamp: str) -> None:
    """Write a run's configuration beside its logs, under the name of its file; nothing where there is no folder."""
    if log_dir is None or not isinstance(cfg, Mapping):
        return
    resolved = cfg if isinstance(cfg, Config) else Config(cfg)
    name = Path(resolved.filename or f"{timestamp}.py")
    if name.suffix not in (".py", ".json", ".yaml", ".yml"):
        name = name.with_suffix(".py")
    Path(log_dir).mkdir(parents=True, exist_ok=True)
    resolved.dump(Path(log_dir) / name.name)


def _looks_misspelled(name: str, known: Collection[str]) -> bool:
    """Whether a name is nearly that of an argument; ``val_evaluator_coco`` is a variable, named after one."""
    is_derived = any(name.startswith(f"{each}_") for each in known)
    return not is_derived and bool(did_you_mean(name, known, cutoff=0.85))


def _check(cfg: Mapping[str, Any], known: Collection[str]) -> None:
    if has_mmcv_form(cfg):
        forms = "".join(f"\n  {name}: write {form}" for name, form in _OF_MMCV.items() if name in cfg)
        raise ConfigError(
            f"This configuration has the form of MMCV 1.x, which this Runner does not read. `asynchooks train` and "
            f"asynchooks.runner.mmcv.ConfiguredRun run it as it is; for this Runner,{forms}"
        )
    near = [name for name in cfg if name not in known and _looks_misspelled(str(name), known)]
    _config.reject_unknown("Runner", near, known)
    for name, form in (("model", "dict(type=...)"), ("work_dir", "'./work_dirs/my_run'")):
        if cfg.get(name) is None:
            raise ConfigError(f"The configuration has no {name!r}; a Runner needs {name}={form}.")
