"""Draws what a data sample says of its image: ground truth on the left, predictions on the right.

Decides colors, captions and the order of layers; the canvas draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from asynchooks.visualization._canvas import Canvas, ShapeStyle
from asynchooks.visualization._colors import palette_of
from asynchooks.visualization._image import array_of, image_of
from asynchooks.visualization._sample import field_of, read_sample

if TYPE_CHECKING:
    from asynchooks.visualization._backend import Image

__all__ = ["Style", "draw_sample"]

_INSTANCE_OFFSET = 1000  # a panoptic map holds class + 1000 * instance, MMDetection's INSTANCE_OFFSET
_IGNORED = 255


@dataclass(frozen=True, slots=True)
class Style:
    """How samples are drawn.

    Attributes:
        bbox_color, mask_color: one color, a palette, or None for the data set's.
        text_color: color of captions.
        line_width: of boxes, in pixels.
        alpha: opacity of boxes; masks have half of it.
    """

    bbox_color: Any = None
    text_color: Any = (200, 200, 200)
    mask_color: Any = None
    line_width: float = 3
    alpha: float = 0.8


def draw_sample(
    image: Any,
    sample: Any,
    *,
    meta: Mapping[str, Any],
    style: Style,
    draw_gt: bool,
    draw_pred: bool,
    score_thr: float,
) -> Image:
    """Return the image with what the sample says; both sides where there are both.

    Args:
        image: height x width x 3, RGB.
        sample: the data sample; None for the image alone.
        meta: ``classes`` and ``palette`` of the data set.
        style: how.
        draw_gt: whether the ground truth is drawn.
        draw_pred: whether predictions are.
        score_thr: predictions with no higher score are left out.
    """
    base = image_of(image)
    if sample is None:
        return base
    read = read_sample(sample, score_thr=score_thr)
    wanted = [side for side, draw in (("gt", draw_gt), ("pred", draw_pred)) if draw]
    sides = [_side(base, read, side, meta, style) for side in wanted if _has(read, side)]
    return np.concatenate(sides, axis=1) if sides else base


def _has(sample: Any, side: str) -> bool:
    return any(name.startswith(f"{side}_") for name in sample)


def _side(image: Image, sample: Any, side: str, meta: Mapping[str, Any], style: Style) -> Image:
    canvas = Canvas(image)
    for name in (f"{side}_sem_seg", f"{side}_panoptic_seg"):
        if name in sample:
            _draw_map(canvas, field_of(sample[name], "sem_seg"), meta, style, panoptic="panoptic" in name)
    for name in (f"{side}_instances", f"{side}_track_instances"):
        if name in sample:
            _draw_instances(canvas, sample[name], meta, style)
    if f"{side}_label" in sample:
        _draw_label(canvas, sample, side, meta, style)
    return canvas.image


def _draw_instances(canvas: Canvas, instances: Any, meta: Mapping[str, Any], style: Style) -> None:
    labels = [int(label) for label in instances.get("labels", ())]
    ids = [int(each) for each in instances.get("instances_id", ())]
    bboxes, masks = instances.get("bboxes"), instances.get("masks")
    count = len(bboxes) if bboxes is not None else 0 if masks is None else len(masks)
    kinds = (ids or labels or [0] * count)[:count]
    palette = None if ids else meta.get("palette")  # every track has a color of its own
    boxes_in = palette if style.bbox_color is None else style.bbox_color
    if masks is not None and len(masks):
        in_masks = palette if style.mask_color is None else style.mask_color
        canvas.binary_masks(masks, [palette_of(in_masks, kind) for kind in kinds], style.alpha / 2)
    corners = None if bboxes is None else array_of(bboxes)[:, :4]
    if corners is not None and corners.any():  # heads without boxes predict zeros
        colors = [palette_of(boxes_in, kind) for kind in kinds]
        canvas.bboxes(corners, ShapeStyle(colors, "-", style.line_width, None, style.alpha))
        at = corners[:, :2] + style.line_width
    elif masks is not None and len(masks):
        at = np.array([_middle(mask) for mask in masks])
    else:
        return
    captions = [_caption(instances, index, labels, ids, meta) for index in range(count)]
    background = {"facecolor": "k", "alpha": 0.8, "pad": 1} if any(captions) else None
    canvas.texts(captions, at, None, style.text_color, "top", "left", None, background, None)


def _middle(mask: Any) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return (float(columns.mean()), float(rows.mean())) if len(rows) else (0.0, 0.0)


def _caption(instances: Any, index: int, labels: list[int], ids: list[int], meta: Mapping[str, Any]) -> str:
    words = []
    names = instances.get("label_names")
    if names is not None:
        words.append(str(names[index]))
    elif labels:
        words.append(_name(labels[index], meta))
    if ids:
        words.append(str(ids[index]))
    if "scores" in instances:
        words.append(f"{round(float(instances['scores'][index]) * 100, 1)}")
    return ": ".join(words)


def _draw_map(canvas: Canvas, sem_seg: Any, meta: Mapping[str, Any], style: Style, *, panoptic: bool) -> None:
    labels = np.squeeze(array_of(sem_seg)).astype(np.int64)
    classes = meta.get("classes")
    drawn = (labels >= 0) & (labels != (len(classes) if panoptic and classes else _IGNORED))
    kinds = labels % _INSTANCE_OFFSET if panoptic else labels
    colors = np.zeros((*labels.shape, 3), np.uint8)
    for kind in np.unique(kinds[drawn]):
        colors[kinds == kind] = palette_of(meta.get("palette"), int(kind))
    canvas.colored(colors, drawn, style.alpha)


def _draw_label(canvas: Canvas, sample: Any, side: str, meta: Mapping[str, Any], style: Style) -> None:
    labels = [int(label) for label in np.atleast_1d(sample[f"{side}_label"])]
    scores = sample.get("pred_score") if side == "pred" else None
    lines = []
    for label in labels:
        score = "" if scores is None or scores.ndim == 0 else f": {float(scores[label]):.2f}"
        lines.append(f"{side}: {_name(label, meta)}{score}")
    at = np.array([[2.0, 2.0]])
    box = [{"facecolor": "k", "alpha": 0.8, "pad": 1}]
    canvas.texts(["\n".join(lines)], at, None, style.text_color, "top", "left", None, box, None)


def _name(label: int, meta: Mapping[str, Any]) -> str:
    classes = meta.get("classes")
    return str(classes[label]) if classes is not None and 0 <= label < len(classes) else f"class {label}"
