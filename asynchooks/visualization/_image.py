"""Images as arrays and as files: uint8, height x width x 3, RGB.

Pillow decodes and encodes without the GIL. Loaded when it is first needed.
"""

from __future__ import annotations

import importlib.util
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from asynchooks.errors import ConfigError

if TYPE_CHECKING:
    from asynchooks.visualization._backend import Image

__all__ = ["array_of", "check_pillow", "decode_image", "encode_image", "image_of"]

_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".webp": "WEBP", ".gif": "GIF"}


def check_pillow(taker: str) -> None:
    """Raise `ConfigError` where Pillow is not installed; ``taker`` is who needs it."""
    if importlib.util.find_spec("PIL") is None:
        raise ConfigError(f"{taker} needs the package Pillow: pip install 'asynchooks[visualization]'.")


def decode_image(data: bytes) -> Image:
    """Return the image in a file's bytes, turned as its EXIF data says, as detectors' loaders turn it.

    Raises:
        ValueError: these bytes are no image.
    """
    check_pillow("An image")
    from PIL import Image as PillowImage
    from PIL import ImageOps, UnidentifiedImageError

    try:
        with PillowImage.open(io.BytesIO(data)) as opened:
            return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    except UnidentifiedImageError as error:
        raise ValueError(f"These {len(data)} bytes are no image that Pillow knows.") from error


def encode_image(image: Image, suffix: str = ".png") -> bytes:
    """Return an image as the bytes of a file; the suffix chooses the format, PNG where it is not known."""
    check_pillow("An image")
    from PIL import Image as PillowImage

    buffer = io.BytesIO()
    PillowImage.fromarray(image_of(image)).save(buffer, format=_FORMATS.get(suffix.lower(), "PNG"))
    return buffer.getvalue()


def image_of(image: Any) -> Image:
    """Return an array or tensor as an image: height x width (x 1 or 3 or 4), clipped to 0...255.

    Raises:
        ValueError: it has another shape.
    """
    array = array_of(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"An image is height x width x 3 (or 1), RGB, not an array of the shape {array.shape}."
        )
    array = np.repeat(array, 3, axis=2) if array.shape[-1] == 1 else array[..., :3]
    if array.dtype != np.uint8:
        array = np.clip(array, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(array)


def array_of(value: Any) -> Any:
    """Return a numpy array of what boxes, masks and scores come as: tensors, arrays, structures around them."""
    for wrapped in ("to_ndarray", "tensor"):  # masks of polygons or bitmaps; boxes with a format of their own
        inner = getattr(value, wrapped, None)
        if inner is not None and not isinstance(value, np.ndarray):
            value = inner() if callable(inner) else inner
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        return value.numpy()
    return np.asarray(value)
