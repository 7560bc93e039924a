"""Stands in for neptune.types."""

from typing import Any


class File:
    @staticmethod
    def from_content(content: str) -> tuple[str, str]:
        return ("content", content)

    @staticmethod
    def as_image(image: Any) -> tuple[str, float]:
        return ("image", float(image.max()))
