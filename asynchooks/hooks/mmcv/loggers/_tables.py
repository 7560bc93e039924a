"""What W&B's tables show of a detector: images with their boxes and masks. Knows no run and opens nothing.

Boxes are (x1, y1, x2, y2[, score]) in pixels; W&B counts classes from 1, since 0 is its background.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Sample", "box_data", "class_labels", "mask_data", "prediction_of"]


@dataclass(frozen=True, slots=True)
class Sample:
    """An image with what is marked in it.

    Attributes:
        name: name of the image.
        boxes: n x 4, or n x 5 with scores.
        labels: n classes, counted from 0.
        masks: n masks: arrays, polygons or COCO's run lengths.
        read: returns the image, height x width x 3, RGB.
    """

    name: str
    boxes: Any
    labels: Any
    masks: Sequence[Any] = ()
    read: Callable[[], Any] | None = field(default=None, compare=False)


def class_labels(classes: Sequence[str]) -> dict[int, str]:
    """Return W&B's numbers of the classes."""
    return dict(enumerate(classes, start=1))


def prediction_of(name: str, result: Any, score_thr: float) -> Sample:
    """Return what a detector has found in an image: boxes per class, or those and masks per class."""
    boxes_by_class, masks_by_class = result if isinstance(result, tuple) else (result, None)
    if isinstance(masks_by_class, tuple):  # with scores of their own
        masks_by_class = masks_by_class[0]
    boxes = np.concatenate([np.asarray(each, dtype=np.float64).reshape(-1, 5) for each in boxes_by_class])
    labels = np.concatenate([np.full(len(each), label) for label, each in enumerate(boxes_by_class)])
    masks = [mask for each in masks_by_class or () for mask in each]
    kept = np.flatnonzero(boxes[:, 4] > score_thr) if score_thr > 0 else np.arange(len(boxes))
    return Sample(
        name, boxes[kept], labels[kept].astype(int), [masks[index] for index in kept] if masks else ()
    )


def box_data(sample: Sample, classes: Mapping[int, str]) -> dict[str, Any]:
    """Return the boxes of a sample in W&B's form."""
    boxes = []
    for box, label in zip(sample.boxes, sample.labels, strict=True):
        number = int(label) + 1
        score = f" {float(box[4]):.2f}" if len(box) == 5 else ""
        position = dict(zip(("minX", "minY", "maxX", "maxY"), map(int, box[:4]), strict=True))
        boxes.append(
            {
                "position": position,
                "class_id": number,
                "box_caption": f"{classes[number]}{score}",
                "domain": "pixel",
            }
        )
    return {"box_data": boxes, "class_labels": dict(classes)}


def mask_data(sample: Sample, classes: Mapping[int, str], height: int, width: int) -> dict[str, Any]:
    """Return the masks of a sample in W&B's form, one per class; none where pycocotools is needed and not there."""
    areas: dict[int, Any] = {}
    for mask, label in zip(sample.masks, sample.labels, strict=False):
        area = _bitmap(mask, height, width)
        if area is not None:
            number = int(label) + 1
            areas[number] = area | areas[number] if number in areas else area
    return {
        classes[number]: {"mask_data": area.astype(np.uint8) * number, "class_labels": dict(classes)}
        for number, area in areas.items()
    }


def _bitmap(mask: Any, height: int, width: int) -> Any:
    if isinstance(mask, np.ndarray):
        return mask.astype(bool)
    if importlib.util.find_spec("pycocotools") is None:
        return None
    coco: Any = importlib.import_module("pycocotools.mask")
    runs = mask if isinstance(mask, Mapping) and isinstance(mask["counts"], bytes | str) else None
    if runs is None:
        runs = coco.frPyObjects(mask, height, width)
        runs = coco.merge(runs) if isinstance(runs, list) else runs
    return coco.decode(runs).astype(bool)
