"""The images of an MMDetection 2.x data set that are shown after evaluations.

Takes annotations on the training thread and leaves reading files to the background.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from asynchooks.hooks.mmcv.loggers._tables import Sample
from asynchooks.visualization import decode_image

__all__ = ["chosen", "ground_truth"]

_SEED = 42


def chosen(count: int, size: int) -> list[int]:
    """Return which of ``size`` images are shown: always the same, in an order of their own.

    MMDetection's choice, but without setting NumPy's global seed, which would change the training.
    """
    order = np.arange(size)
    np.random.RandomState(_SEED).shuffle(order)
    return [int(index) for index in order[:count]]


def ground_truth(dataset: Any, index: int) -> Sample:
    """Return an image of a data set with its annotations."""
    info = dataset.data_infos[index]
    annotations = dataset.get_ann_info(index)
    prefix = getattr(dataset, "img_prefix", None)
    return Sample(
        str(info.get("filename", f"img_{index}")),
        np.array(annotations["bboxes"]).reshape(-1, 4),
        np.array(annotations["labels"]),
        list(annotations.get("masks", ())),
        partial(_read, _loader(dataset), dict(info), prefix),
    )


def _loader(dataset: Any) -> Any:
    """Return the step of the data set's pipeline that loads an image, or None."""
    transforms = getattr(getattr(dataset, "pipeline", None), "transforms", ())
    return next((each for each in transforms if type(each).__name__ == "LoadImageFromFile"), None)


def _read(load: Any, info: Mapping[str, Any], prefix: Any) -> Any:
    if load is not None:
        return load({"img_info": info, "img_prefix": prefix})["img"][..., ::-1]  # it loads BGR
    return decode_image(Path(prefix or "", info["filename"]).read_bytes())
