"""The loaders and loops of a run: checked at construction, built when they are first needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asynchooks.data import length_of
from asynchooks.errors import ConfigError
from asynchooks.runner import _config
from asynchooks.runner._evaluation import build_evaluators, check_evaluators
from asynchooks.runner._samplers import build_dataloader, check_dataloader
from asynchooks.runner._sharing import warn_unless_shared
from asynchooks.runner._visualizer import tell_of_data

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Parts"]


class Parts:
    """What of a run is built late, by mode: "train", "val", "test".

    Args:
        loaders: loaders or their dicts.
        cfgs: options of the loops.
        evaluators: evaluators or their dicts.
        scope: scope that is asked first for a bare name.

    Attributes:
        train_loop: the training loop, None until it is built. Hooks ask it in each iteration.
    """

    def __init__(
        self,
        loaders: Mapping[str, Any],
        cfgs: Mapping[str, Any],
        evaluators: Mapping[str, Any],
        *,
        scope: str | None,
    ) -> None:
        self._loaders = dict(loaders)
        self._evaluators = dict(evaluators)
        self._scope = scope
        self._options: dict[str, tuple[Any, dict[str, Any]]] = {}
        self._loops: dict[str, Any] = {}
        self._looked_at: set[str] = set()
        self.train_loop: Any = None
        if cfgs["train"] is not None:
            check_dataloader(loaders["train"], scope=scope)
            self._options["train"] = _config.resolve_train_loop(cfgs["train"], scope=scope)
        for mode in ("val", "test"):
            given = {f"{mode}_dataloader": loaders[mode], f"{mode}_cfg": cfgs[mode]}
            given[f"{mode}_evaluator"] = evaluators[mode]
            _config.check_complete(mode, given, optional=(f"{mode}_cfg", f"{mode}_evaluator"))
            if loaders[mode] is not None:
                check_dataloader(loaders[mode], scope=scope)
                check_evaluators(evaluators[mode], scope=scope)
                self._options[mode] = _config.resolve_eval_loop(cfgs[mode], mode, scope=scope)

    def has(self, mode: str) -> bool:
        """Whether a loop of this mode is configured."""
        return mode in self._options

    @property
    def counts_epochs(self) -> bool:
        """Whether the training counts epochs; True where there is none."""
        return not self.has("train") or bool(getattr(self._options["train"][0], "by_epoch", True))

    def batch_size(self) -> int:
        """Return the samples per training batch on one rank.

        Raises:
            ConfigError: the loader does not say.
        """
        loader = self._loaders["train"]
        if isinstance(loader, dict):
            size = None if "batch_sampler" in loader else loader.get("batch_size", 1)
        else:
            size = getattr(loader, "batch_size", None)
        if not isinstance(size, int):
            raise ConfigError(f"auto_scale_lr needs the batch_size of train_dataloader, which is {size!r}.")
        return size

    def loader(self, mode: str, *, seed: int) -> Any:
        """Return a loader, built now if it is still a dict; None where there is none."""
        loader = self._loaders[mode]
        if isinstance(loader, dict):
            loader = build_dataloader(loader, seed=seed, mode=mode, scope=self._scope)
            self._loaders[mode] = loader
        if mode not in self._looked_at:
            self._looked_at.add(mode)
            warn_unless_shared(loader, mode)
        return loader

    def epoch_length(self, *, seed: int) -> int:
        """Return how many iterations a training epoch has; builds the loader.

        Raises:
            ConfigError: the loader does not say.
        """
        length = length_of(self.loader("train", seed=seed))
        if not length:
            raise ConfigError(
                "convert_to_iter_based=True needs the length of train_dataloader, which has none. Count iterations: "
                "by_epoch=False, with begin, end and the other numbers in iterations."
            )
        return length

    def max_steps(self, *, by_epoch: bool, seed: int) -> int | None:
        """Return the epochs or iterations of the whole training as it is configured; None where unknown."""
        options = self._options["train"][1] if self.has("train") else {}
        epochs, iterations = options.get("max_epochs"), options.get("max_iters")
        if by_epoch or epochs is None:
            return epochs if by_epoch else iterations
        length = length_of(self.loader("train", seed=seed))
        return epochs * length if length else None

    def loop(self, mode: str, runner: Any, *, seed: int) -> Any:
        """Return a loop, built now if it was not yet.

        Raises:
            ConfigError: none is configured.
        """
        if mode not in self._loops:
            if not self.has(mode):
                needed = (
                    "train_dataloader, train_cfg and optim_wrapper"
                    if mode == "train"
                    else f"{mode}_dataloader"
                )
                raise ConfigError(f"This Runner cannot {mode}: it was built without {needed}.")
            target, options = self._options[mode]
            if mode != "train":
                evaluators = build_evaluators(self._evaluators[mode], scope=self._scope)
                options = {"evaluators": evaluators, **options}
            tell_of_data(runner.visualizer, self.loader(mode, seed=seed))
            self._loops[mode] = target(runner=runner, dataloader=self.loader(mode, seed=seed), **options)
            self.train_loop = self._loops.get("train")
        return self._loops[mode]
