"""Finds heads that count other classes than the data set has, before they are trained or validated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asynchooks.errors import ClassCountError
from asynchooks.execution import Effects, Hook
from asynchooks.registry import HOOKS

__all__ = ["NumClassCheckHook"]

# These count something else: a backbone's classes, and those of another data set.
_OTHERS = frozenset({"VGG", "FusedSemanticHead"})


@HOOKS.register_module()
class NumClassCheckHook(Hook):
    """Compares ``num_classes`` of every module with ``classes`` of the data set's ``metainfo`` (or its ``CLASSES``).

    Left out are modules whose name ends with ``rpn_head`` (they tell objects from background) and MMDetection's
    ``VGG`` and ``FusedSemanticHead``. A data set that names no classes is a warning, once per kind of loader.
    """

    effects = Effects()
    changes_state = False

    def __init__(self) -> None:
        self._warned: set[str] = set()

    def before_train_epoch(self, runner: Any) -> None:
        """Compare with the training's data.

        Raises:
            ClassCountError: (an AssertionError) they differ, or ``classes`` is a string.
        """
        self._check(runner, "train")

    def before_val_epoch(self, runner: Any) -> None:
        """Compare with the validation's data.

        Raises:
            ClassCountError: (an AssertionError) they differ, or ``classes`` is a string.
        """
        self._check(runner, "val")

    def _check(self, runner: Any, mode: str) -> None:
        dataset = getattr(getattr(runner, f"{mode}_dataloader", None), "dataset", None)
        name = type(dataset).__name__
        classes = _classes_of(dataset)
        if classes is None:
            if mode not in self._warned:
                self._warned.add(mode)
                runner.logger.warning(
                    "NumClassCheckHook: %s names no classes in its metainfo, so num_classes of the heads is not "
                    "checked.",
                    name,
                )
            return
        if isinstance(classes, str):
            raise ClassCountError(
                f"classes of {name} is the string {classes!r}, of which every letter would be a class; give a "
                f"tuple: ({classes!r},)."
            )
        for path, module in runner.model.named_modules():
            counted = getattr(module, "num_classes", None)
            if counted is not None and _is_compared(path, module) and counted != len(classes):
                raise ClassCountError(
                    f"num_classes={counted} of {path or 'the model'} ({type(module).__name__}) in "
                    f"{type(runner.model).__name__}, but {name} ({mode}) has {len(classes)} classes."
                )


def _classes_of(dataset: Any) -> Any:
    metainfo = getattr(dataset, "metainfo", None)
    if isinstance(metainfo, Mapping):
        return metainfo.get("classes")
    return getattr(dataset, "CLASSES", None)


def _is_compared(path: str, module: Any) -> bool:
    return not path.endswith("rpn_head") and _OTHERS.isdisjoint(
        kind.__name__ for kind in type(module).__mro__
    )
