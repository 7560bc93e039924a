"""Data samples: what is known of one image, and what a model says of it, copied so that it may be drawn later.

A sample is a dict or an object such as mmengine's ``DataElement``; only what can be drawn is read: boxes, labels,
scores, masks, ids of tracks, segmentation maps, labels of classification, and what describes the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from asynchooks.visualization._image import array_of

__all__ = ["DataSample", "copy_sample", "field_of", "read_sample", "samples_of"]

Take: TypeAlias = Callable[[Any], NDArray[Any]]

_INSTANCES = ("gt_instances", "pred_instances", "pred_track_instances")
_MAPS = ("gt_sem_seg", "pred_sem_seg", "gt_panoptic_seg", "pred_panoptic_seg")
_LABELS = ("gt_label", "pred_label", "pred_score")
_PLAIN = ("img_path", "img_id", "img_shape", "ori_shape", "pad_shape", "img_norm_cfg", "frame_id", "video_id")
_OF_INSTANCES = ("bboxes", "labels", "scores", "masks", "instances_id", "label_names")


class DataSample(dict[str, Any]):
    """A dict whose entries are attributes too; what is not there is None as an attribute."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.get(name)


def field_of(sample: Any, name: str) -> Any:
    """Return a field of a dict or an object; None where it has none."""
    return sample.get(name) if isinstance(sample, Mapping) else getattr(sample, name, None)


def samples_of(outputs: Any) -> list[Any]:
    """Return the samples of a batch: those in a list or tuple, or the only one."""
    if outputs is None:
        return []
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def copy_sample(sample: Any, *, score_thr: float | None = None) -> DataSample:
    """Return what can be drawn of a sample, as numpy arrays of its own. Training thread; may wait for the device.

    Args:
        sample: a dict or an object.
        score_thr: predicted instances with no higher score are left out before their masks are copied.
    """
    return _read(sample, score_thr, np.array)


def read_sample(sample: Any, *, score_thr: float | None = None) -> DataSample:
    """Return what can be drawn of a sample, as arrays that may be views of its own; to be drawn at once."""
    return _read(sample, score_thr, np.asarray)


def _read(sample: Any, score_thr: float | None, take: Take) -> DataSample:
    read = DataSample()
    for name in _PLAIN:
        value = field_of(sample, name)
        if value is not None:
            read[name] = _plain(value)
    for name in _INSTANCES:
        instances = field_of(sample, name)
        if instances is not None:
            read[name] = _instances(instances, score_thr if name.startswith("pred") else None, take)
    for name in _MAPS:
        found = field_of(sample, name)
        if found is not None:
            inner = field_of(found, "sem_seg")
            read[name] = DataSample(sem_seg=take(array_of(found if inner is None else inner)))
    for name in _LABELS:
        label = field_of(sample, name)
        if label is not None:
            inner = field_of(label, "label") if not hasattr(label, "shape") else None
            read[name] = take(array_of(label if inner is None else inner))
    return read


def _instances(instances: Any, score_thr: float | None, take: Take) -> DataSample:
    found = {name: field_of(instances, name) for name in _OF_INSTANCES}
    fields = {name: value for name, value in found.items() if value is not None}
    keep = None
    if score_thr is not None and "scores" in fields:
        is_higher = array_of(fields["scores"]) > score_thr
        keep = None if is_higher.all() else np.flatnonzero(is_higher)
    return DataSample({name: _chosen(value, keep, take) for name, value in fields.items()})


def _chosen(value: Any, keep: NDArray[np.intp] | None, take: Take) -> Any:
    if isinstance(value, list | tuple) and not all(isinstance(each, int | float) for each in value):
        return [_plain(each) for each in (value if keep is None else [value[int(i)] for i in keep])]
    if keep is None:
        return take(array_of(value))
    if hasattr(value, "detach"):  # a tensor: only what is kept leaves the device
        return take(array_of(value[keep.tolist()]))
    return array_of(value)[keep]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, str | bytes | int | float | bool | None):
        return value
    if isinstance(value, list | tuple):
        return type(value)(_plain(each) for each in value) if type(value) in (list, tuple) else list(value)
    if hasattr(value, "detach") or isinstance(value, np.ndarray):
        return np.array(array_of(value))
    return str(value) if hasattr(value, "__fspath__") or not isinstance(value, Iterable) else list(value)
