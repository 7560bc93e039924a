"""The hook points: MMEngine's 22 in the order in which a run reaches them, and ``after_save_checkpoint``.

Decides which names are standard and how the generic methods map onto them. Any other identifier may be a
custom point; whether a name is a typo is judged here too.
"""

from __future__ import annotations

from asynchooks.errors import UnknownPointError, did_you_mean

__all__ = ["ARGUMENTS", "GENERIC_METHODS", "POINTS", "check_point_name", "nearest_point"]

POINTS: tuple[str, ...] = (
    "before_run",
    "after_load_checkpoint",
    "before_train",
    "before_train_epoch",
    "before_train_iter",
    "after_train_iter",
    "after_train_epoch",
    "before_val",
    "before_val_epoch",
    "before_val_iter",
    "after_val_iter",
    "after_val_epoch",
    "after_val",
    "before_save_checkpoint",
    "after_save_checkpoint",
    "after_train",
    "before_test",
    "before_test_epoch",
    "before_test_iter",
    "after_test_iter",
    "after_test_epoch",
    "after_test",
    "after_run",
)

# point -> (generic method, mode): a hook that overrides `_after_iter` is called at every `after_*_iter`.
GENERIC_METHODS: dict[str, tuple[str, str]] = {
    f"{when}_{mode}_{unit}": (f"_{when}_{unit}", mode)
    for when in ("before", "after")
    for unit in ("epoch", "iter")
    for mode in ("train", "val", "test")
}

# point -> the keyword arguments with which a run fires it, besides the runner.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "after_load_checkpoint": ("checkpoint",),
    "before_save_checkpoint": ("checkpoint",),
    "after_save_checkpoint": ("path", "meta"),
    "after_val_epoch": ("metrics",),
    "after_test_epoch": ("metrics",),
    **{f"before_{mode}_iter": ("batch_idx", "data_batch") for mode in ("train", "val", "test")},
    **{f"after_{mode}_iter": ("batch_idx", "data_batch", "outputs") for mode in ("train", "val", "test")},
}


def check_point_name(point: object) -> str:
    """Return ``point`` if it can name a hook point; raise `UnknownPointError` otherwise."""
    if isinstance(point, str) and point.isidentifier() and not point.startswith("_"):
        return point
    raise UnknownPointError(
        f"A hook point is a public identifier such as 'after_train_iter', not {point!r}."
        + (did_you_mean(point, POINTS) if isinstance(point, str) else "")
    )


def nearest_point(name: str) -> str | None:
    """Return the standard point that ``name`` misspells, if it looks like a slip of the pen."""
    if name in POINTS or not name.startswith(("before_", "after_")):
        return None
    hint = did_you_mean(name, POINTS, cutoff=0.87)
    return hint.split("'")[1] if hint else None
