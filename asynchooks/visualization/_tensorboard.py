"""`TensorboardVisBackend`: scalars, images, texts and graphs for TensorBoard."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Mapping
from typing import Any

from asynchooks.errors import ConfigError
from asynchooks.registry import VISBACKENDS
from asynchooks.visualization._backend import Image, VisBackend
from asynchooks.visualization._events import EventFile, summary_writer
from asynchooks.visualization._image import encode_image
from asynchooks.visualization._local import config_text
from asynchooks.visualization._scalars import numbers_by_name

__all__ = ["TensorboardVisBackend"]


@VISBACKENDS.register_module()
class TensorboardVisBackend(VisBackend):
    """Appends events to a file in ``save_dir``; each is with the operating system when the call returns.

    Args:
        save_dir: the folder that TensorBoard is pointed at; the visualizer's where it is left out.

    Raises:
        ConfigError: the package tensorboard is not installed.
    """

    needs_save_dir = True

    def __init__(self, save_dir: str | os.PathLike[str] | None = None) -> None:
        super().__init__(save_dir)
        if importlib.util.find_spec("tensorboard") is None:
            raise ConfigError(
                "TensorboardVisBackend needs the package tensorboard: pip install 'asynchooks[tensorboard]'."
            )
        self._events: EventFile | None = None
        self._writer: Any = None

    @property
    def experiment(self) -> Any:
        """PyTorch's ``SummaryWriter``, for what has no method here; it writes to the same file."""
        if self._writer is None:
            self._writer = summary_writer(self._file())
        return self._writer

    def add_config(self, config: Mapping[str, Any] | str) -> None:
        """Record the configuration as a text."""
        self._add_text("config", config_text(config))

    def add_graph(self, model: Any, data_batch: Any = None) -> None:
        """Record the graph that the model runs on a batch, or, without a batch, its printed form as a text."""
        if data_batch is None:
            self._add_text("model", str(model))
        else:
            self.experiment.add_graph(model, data_batch)

    def add_image(self, name: str, image: Image, step: int = 0) -> None:
        """Record an image, as PNG."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

        encoded = Summary.Image(
            height=image.shape[0],
            width=image.shape[1],
            colorspace=3,
            encoded_image_string=encode_image(image),
        )
        self._add([Summary.Value(tag=name, image=encoded)], step)

    def add_scalar(self, name: str, value: float, step: int = 0) -> None:
        """Record one number."""
        self.add_scalars({name: value}, step)

    def add_scalars(
        self, scalars: Mapping[str, Any], step: int = 0, file_path: str | os.PathLike[str] | None = None
    ) -> None:
        """Record the numbers of one step, as one event."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        del file_path
        numbers = numbers_by_name(scalars)
        if numbers:
            self._add([Summary.Value(tag=n, simple_value=float(v)) for n, v in numbers.items()], step)

    def close(self) -> None:
        """Close the file; a later call goes on in it."""
        if self._events is not None:
            self._events.close()

    def _add_text(self, tag: str, text: str) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.compat.proto.tensor_pb2 import TensorProto  # type: ignore[import-untyped]
        from tensorboard.compat.proto.types_pb2 import DT_STRING  # type: ignore[import-untyped]
        from tensorboard.plugins.text.metadata import create_summary_metadata  # type: ignore[import-untyped]

        verbatim = "\n".join(f"    {line}" for line in text.splitlines())  # markdown: as it stands
        value = Summary.Value(
            tag=tag,
            metadata=create_summary_metadata(display_name=tag, description=""),
            tensor=TensorProto(dtype=DT_STRING, string_val=[verbatim.encode()]),
        )
        self._add([value], 0)

    def _add(self, values: list[Any], step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
        from tensorboard.compat.proto.summary_pb2 import Summary

        event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        self._file().add_event(event)

    def _file(self) -> EventFile:
        if self._events is None:
            if self.save_dir is None:
                raise ConfigError(
                    "TensorboardVisBackend writes to its save_dir, or the visualizer's, and there is neither."
                )
            self._events = EventFile(self.save_dir)
        return self._events
