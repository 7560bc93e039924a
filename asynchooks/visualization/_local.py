"""`LocalVisBackend`: lines of JSON, images and the configuration as files in a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from pprint import pformat
from typing import Any

from asynchooks.errors import ConfigError
from asynchooks.registry import VISBACKENDS
from asynchooks.visualization._append import AppendFile
from asynchooks.visualization._backend import Image, VisBackend
from asynchooks.visualization._image import encode_image
from asynchooks.visualization._scalars import json_line

__all__ = ["LocalVisBackend", "config_text"]


@VISBACKENDS.register_module()
class LocalVisBackend(VisBackend):
    """Writes scalars as lines of JSON, images as PNG files, and the configuration as Python.

    Each line is with the operating system when the call returns, through one open file.

    Args:
        save_dir: the folder; the visualizer's where it is left out.
        img_save_dir: folder of the images, inside ``save_dir``; each is called ``{name}_{step}.png``.
        config_save_file: file of the configuration, ``.py``.
        scalar_save_file: file of all scalars, ``.json``.

    Raises:
        ConfigError: a file name with another ending.
    """

    needs_save_dir = True

    def __init__(
        self,
        save_dir: str | os.PathLike[str] | None = None,
        img_save_dir: str = "vis_image",
        config_save_file: str = "config.py",
        scalar_save_file: str = "scalars.json",
    ) -> None:
        super().__init__(save_dir)
        self._img_save_dir = img_save_dir
        self._config_save_file = _checked("config_save_file", config_save_file, ".py")
        self._scalar_save_file = _checked("scalar_save_file", scalar_save_file, ".json")
        self._files: dict[Path, AppendFile] = {}

    def add_config(self, config: Mapping[str, Any] | str) -> None:
        """Write the configuration, in place of an earlier one."""
        _replace(self._inside(self._config_save_file), config_text(config).encode())

    def add_graph(self, model: Any, data_batch: Any) -> None:
        """Write the model's printed form to ``model.txt``."""
        del data_batch
        _replace(self._inside("model.txt"), f"{model}\n".encode())

    def add_image(self, name: str, image: Image, step: int = 0) -> None:
        """Write an image, in place of an earlier one of that name and step."""
        path = self._inside(str(Path(self._img_save_dir, f"{name}_{step}.png")))
        _replace(path, encode_image(image))

    def add_scalar(self, name: str, value: float, step: int = 0) -> None:
        """Append one line."""
        self._append(self._scalar_save_file, {name: value, "step": step})

    def add_scalars(
        self, scalars: Mapping[str, Any], step: int = 0, file_path: str | os.PathLike[str] | None = None
    ) -> None:
        """Append one line to the file of all scalars, and to a further one inside ``save_dir``.

        An entry ``step`` among the scalars wins over the argument, as in MMEngine.
        """
        line = {**scalars, "step": scalars.get("step", step)}
        self._append(self._scalar_save_file, line)
        if file_path is not None:
            further = _checked("file_path", os.fspath(file_path), ".json")
            if self._inside(further) != self._inside(self._scalar_save_file):
                self._append(further, line)

    def close(self) -> None:
        """Close the files."""
        while self._files:
            self._files.popitem()[1].close()

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        path = self._inside(name)
        if path not in self._files:
            self._files[path] = AppendFile(path)
        self._files[path].write(json_line(line))

    def _inside(self, name: str) -> Path:
        if self.save_dir is None:
            raise ConfigError(
                "LocalVisBackend writes to its save_dir, or the visualizer's, and there is neither."
            )
        path = Path(os.path.normpath(Path(self.save_dir, name)))
        if not path.is_relative_to(os.path.normpath(self.save_dir)):
            raise ConfigError(f"LocalVisBackend writes inside of {self.save_dir}; {name!r} leaves it.")
        return path


def config_text(config: Mapping[str, Any] | str) -> str:
    """Return a configuration as Python: its own pretty text, or one assignment per entry."""
    if isinstance(config, str):
        return config
    pretty = getattr(config, "pretty_text", None)
    if isinstance(pretty, str):
        return pretty
    return "".join(
        f"{name} = {pformat(value, width=100, sort_dicts=False)}\n" for name, value in config.items()
    )


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_bytes(data)
    unfinished.replace(path)


def _checked(argument: str, name: str, suffix: str) -> str:
    if not isinstance(name, str) or not name.endswith(suffix):
        raise ConfigError(f"LocalVisBackend({argument}={name!r}): give a file name that ends in {suffix!r}.")
    return name
