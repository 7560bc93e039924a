"""`WandbVisBackend`: a run of Weights & Biases.

The x axis is the step that was given, per curve, as TensorBoard has it: W&B's own step only ever grows, and drops
what comes under an earlier one, such as a validation's numbers filed under their epoch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from asynchooks.errors import ConfigError
from asynchooks.registry import VISBACKENDS
from asynchooks.visualization._backend import Image
from asynchooks.visualization._client import ClientBackend, checked_mapping, config_values, plain
from asynchooks.visualization._scalars import numbers_by_name

__all__ = ["WandbVisBackend"]

STEP = "step"


@VISBACKENDS.register_module()
class WandbVisBackend(ClientBackend):
    """Writes to a run of W&B; after `close`, to the same run (in offline mode, to a further folder with its id).

    A run that is active already is shared, and left to whoever began it to end.

    Args:
        save_dir: folder of W&B's local files, unless ``init_kwargs`` has ``dir``.
        init_kwargs: arguments of ``wandb.init``, such as ``dict(project=..., mode="offline")``.
        define_metric_cfg: summaries by metric, ``{"coco/bbox_mAP": "max"}``, or a list of dicts with the arguments
            of ``define_metric``.
        commit: whether each call makes a row of its own; False collects until somebody commits.
        log_code_name: name of the artifact with the code; recorded with the configuration.
        watch_kwargs: arguments of ``watch``.

    Raises:
        ConfigError: wandb is not installed, or ``define_metric_cfg`` is no metric's.
        TypeError: an argument of the wrong type.
    """

    package = "wandb"
    extra = "wandb"

    def __init__(
        self,
        save_dir: str | os.PathLike[str] | None = None,
        init_kwargs: Mapping[str, Any] | None = None,
        define_metric_cfg: Mapping[str, str] | Sequence[Mapping[str, Any]] | None = None,
        commit: bool | None = True,  # noqa: FBT001, FBT002 - MMEngine's order of arguments
        log_code_name: str | None = None,
        watch_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(save_dir)
        self._init_kwargs = checked_mapping("WandbVisBackend", "init_kwargs", init_kwargs)
        self._metrics = _checked_metrics(define_metric_cfg)
        self._commit = commit
        self._log_code_name = log_code_name
        self._watch_kwargs = checked_mapping("WandbVisBackend", "watch_kwargs", watch_kwargs)
        self._run_id: str | None = None
        self._rows = 0
        self._is_own = self._is_again = False
        self._opened_at = 0.0

    @property
    def experiment(self) -> Any:
        """W&B's run, opened now if it is not open."""
        if getattr(self._client, "_is_finished", False):  # by whoever shares it
            self._client = None
        return super().experiment

    def add_config(self, config: Mapping[str, Any] | str) -> None:
        """Record the configuration of the run, and the code beside the program."""
        self.experiment.config.update(
            config_values(config),
            allow_val_change=bool(self._init_kwargs.get("allow_val_change")) or self._is_again,
        )
        self.experiment.log_code(name=self._log_code_name)

    def add_graph(self, model: Any, data_batch: Any) -> None:
        """Have W&B watch a model: a module that is trained elsewhere shows its structure, not its gradients."""
        del data_batch
        self.experiment.watch(model, **self._watch_kwargs)

    def add_image(self, name: str, image: Image, step: int = 0) -> None:
        """Record an image."""
        import wandb

        self.add_row({name: wandb.Image(image), STEP: step}, commit=self._commit)

    def add_scalars(
        self, scalars: Mapping[str, Any], step: int = 0, file_path: str | os.PathLike[str] | None = None
    ) -> None:
        """Record the numbers of one step, as one row."""
        del file_path
        numbers = numbers_by_name(scalars)
        if numbers:
            self.add_row({**numbers, STEP: step}, commit=self._commit)

    def add_row(self, row: Mapping[str, Any], *, step: int | None = None, commit: bool | None = None) -> None:
        """Record a row: numbers, or W&B's own types.

        Args:
            row: values by name.
            step: W&B's step; rows of one step are one row. One that has passed is the current one.
            commit: whether the row is complete; None: it is where no step is given.
        """
        run = self.experiment
        present = max(run.step, self._rows)  # a run that was closed offline counts from 0 again
        if step is not None:
            step = max(step, present)
            row = {STEP: step, **row}
        elif present > run.step:
            step, commit = present, commit is not False
        run.log(dict(row), step=step, commit=commit)

    def add_artifact(
        self,
        name: str,
        type: str,  # noqa: A002 - W&B's name
        files: Mapping[str, str | os.PathLike[str]] | Iterable[str | os.PathLike[str]] = (),
        *,
        objects: Mapping[str, Any] | None = None,
        aliases: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> Any:
        """Record files and W&B's own objects as a version of an artifact; the upload is W&B's. Return the artifact.

        Args:
            name: name of the artifact.
            type: kind of the artifact, such as "model".
            files: local files, perhaps by their names in it; they are copied before this returns.
            objects: tables and the like, by name.
            aliases: names of this version.
            metadata: notes on it.
        """
        import wandb

        run = self.experiment
        artifact = wandb.Artifact(name, type=type, metadata=None if metadata is None else plain(metadata))
        named = files if isinstance(files, Mapping) else {Path(path).name: path for path in files}
        for inner, path in named.items():
            artifact.add_file(os.fspath(path), name=inner)
        for key, each in (objects or {}).items():
            artifact.add(each, key)
        return run.log_artifact(artifact, aliases=list(aliases) or None)

    def _open(self) -> Any:
        import wandb

        self._is_own, self._is_again = wandb.run is None, self._run_id is not None
        run = wandb.init(**self._options()) if wandb.run is None else wandb.run
        self._run_id, self._opened_at = run.id, time.time()
        run.define_metric(STEP, hidden=True)
        run.define_metric("*", step_metric=STEP)
        for options in self._metrics:
            run.define_metric(**{"step_metric": STEP, **options})
        return run

    def _options(self) -> dict[str, Any]:
        options = dict(self._init_kwargs)
        if "dir" not in options and self.save_dir is not None:
            Path(self.save_dir).mkdir(parents=True, exist_ok=True)
            options["dir"] = self.save_dir
        if self._run_id is not None:
            options |= {"id": self._run_id, "resume": options.get("resume") or "allow"}
            time.sleep(
                max(0.0, self._opened_at + 1.0 - time.time())
            )  # an offline folder is named by its second
        return options

    def _finish(self, client: Any) -> None:
        if getattr(client, "_is_finished", False):
            return
        self._rows = client.step
        if self._is_own:
            client.finish(exit_code=1 if self.has_failed else None)


def _checked_metrics(metrics: Any) -> list[dict[str, Any]]:
    if isinstance(metrics, Mapping):
        metrics = [{"name": name, "summary": summary} for name, summary in metrics.items()]
    if metrics is not None and (isinstance(metrics, str) or not isinstance(metrics, Sequence)):
        raise TypeError(f"WandbVisBackend(define_metric_cfg={metrics!r}): give a dict or a list of dicts.")
    for options in metrics or ():
        summary = options.get("summary") if isinstance(options, Mapping) else None
        if not isinstance(options, Mapping) or "name" not in options:
            raise ConfigError(
                f"WandbVisBackend(define_metric_cfg=...): {options!r} is no dict(name=..., summary=...)."
            )
        if summary is not None and not set(str(summary).split(",")) <= _SUMMARIES:
            raise ConfigError(
                f"WandbVisBackend(define_metric_cfg=...): {options['name']!r} has the summary {summary!r}; there are "
                f"{', '.join(sorted(_SUMMARIES))}."
            )
    return [dict(options) for options in metrics or ()]


_SUMMARIES = {"min", "max", "mean", "best", "last", "none", "copy", "first"}
