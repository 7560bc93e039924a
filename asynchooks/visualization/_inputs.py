"""What a model was fed, as images again: which inputs a batch has, and how one looked before it was prepared."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from asynchooks.visualization._image import check_pillow, image_of
from asynchooks.visualization._sample import field_of

if TYPE_CHECKING:
    from asynchooks.visualization._backend import Image

__all__ = ["input_image", "inputs_of"]


def inputs_of(data_batch: Any) -> list[tuple[Any, Any]]:
    """Return the images of a batch, channels x height x width, each with its data sample or label; copies nothing.

    Args:
        data_batch: ``{"inputs": ..., "data_samples": ...}``, a list of such dicts of one image each, a pair of images
            and targets, or the images.

    Raises:
        ValueError: it holds no images.
    """
    if isinstance(data_batch, Mapping) and "inputs" in data_batch:
        samples = data_batch.get("data_samples", data_batch.get("data_sample"))
        return _paired(data_batch["inputs"], samples)
    if isinstance(data_batch, list | tuple) and data_batch:
        if all(isinstance(each, Mapping) for each in data_batch):
            return [pair for each in data_batch for pair in inputs_of(each)]
        if len(data_batch) == 2 and getattr(data_batch[0], "ndim", 0) == 4:
            return _paired(*data_batch)
    if getattr(data_batch, "ndim", 0) in (3, 4):
        return _paired(data_batch, None)
    raise ValueError(
        f"A batch to show is dict(inputs=..., data_samples=...), a list of such, (images, targets) or images; "
        f"it is a {type(data_batch).__name__}."
    )


def input_image(array: Any, sample: Any = None) -> Image:
    """Return an input as the image that it was: values, size and padding undone as the data sample says.

    Args:
        array: channels x height x width (1 or 3 channels). Of floats without ``img_norm_cfg`` in the sample, those
            from 0 to 1 are taken for shares of 255.
        sample: may say ``img_norm_cfg`` (``mean``, ``std``, ``to_rgb``), ``img_shape`` (without padding) and
            ``ori_shape`` (of the original image), each (height, width, ...).
    """
    image = np.asarray(array).transpose(1, 2, 0)
    norm = field_of(sample, "img_norm_cfg")
    if norm:
        image = image * np.asarray(norm.get("std", 1.0), float) + np.asarray(norm.get("mean", 0.0), float)
        image = image if norm.get("to_rgb", True) else image[..., ::-1]  # the network was fed BGR
    elif image.dtype.kind == "f" and image.size and image.min() >= 0 and image.max() <= 1:
        image = image * 255
    shape, original = field_of(sample, "img_shape"), field_of(sample, "ori_shape")
    if shape is not None:
        image = image[: int(shape[0]), : int(shape[1])]
    picture = image_of(np.rint(image) if image.dtype.kind == "f" else image)
    return picture if original is None else _resized(picture, int(original[0]), int(original[1]))


def _paired(images: Any, samples: Any) -> list[tuple[Any, Any]]:
    if getattr(images, "ndim", 0) == 3:
        return [(images, samples[0] if isinstance(samples, list | tuple) else samples)]
    several = list(images)
    known = (
        list(samples) if isinstance(samples, list | tuple) or getattr(samples, "ndim", None) else [samples]
    )
    return list(zip_longest(several, known[: len(several)]))


def _resized(image: Image, height: int, width: int) -> Image:
    if image.shape[:2] == (height, width):
        return image
    check_pillow("Resizing an image")
    from PIL import Image as PillowImage

    return np.asarray(PillowImage.fromarray(image).resize((width, height), PillowImage.Resampling.BILINEAR))
