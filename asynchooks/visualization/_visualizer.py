"""`Visualizer`: hands what a run shows to its backends, and draws images for them.

Decides who receives what; knows no file format. A backend that fails keeps no other from its record: the failure is
raised when every one has had it.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from asynchooks.errors import ConfigError
from asynchooks.registry import VISBACKENDS, VISUALIZERS
from asynchooks.visualization._backend import VisBackend
from asynchooks.visualization._drawing import Style, draw_sample
from asynchooks.visualization._image import encode_image, image_of
from asynchooks.visualization._pen import Pen

__all__ = ["Visualizer"]


@VISUALIZERS.register_module(name=["Visualizer", "DetLocalVisualizer", "TrackLocalVisualizer"])
class Visualizer(Pen):
    """Writes scalars, images, graphs and the configuration of a run to several backends, and draws.

    Its methods block: hooks call them in their background parts, in worker threads, in the order of the effect
    ``logs.visualizer``; a lock lets one thread in at a time. In a distributed run the first rank alone writes.
    Whoever makes one closes it; a `Runner` closes its own at the end of each train, val and test, and a later call
    opens what it needs again.

    Args:
        name: name of this visualizer.
        image: image to draw on.
        vis_backends: backends, as objects or dicts for the registry VISBACKENDS; a dict may have a ``name``.
        save_dir: folder of the run; backends without one of their own write to ``vis_data`` in it.
        bbox_color: color of boxes: one, a palette, or None for the data set's.
        text_color: color of captions.
        mask_color: color of masks, as ``bbox_color``.
        line_width: of boxes, in pixels.
        alpha: opacity of boxes; masks have half of it.

    Attributes:
        dataset_meta: ``classes`` and ``palette`` of the data set.

    Raises:
        ConfigError: two backends of one name, or one that needs a folder and has none.
        TypeError: ``vis_backends`` holds something else.
    """

    _named: ClassVar[dict[str, Visualizer]] = {}
    _newest: ClassVar[weakref.ref[Visualizer] | None] = None
    _named_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        name: str = "visualizer",
        image: Any = None,
        vis_backends: Any = None,
        save_dir: str | os.PathLike[str] | None = None,
        *,
        bbox_color: Any = None,
        text_color: Any = (200, 200, 200),
        mask_color: Any = None,
        line_width: float = 3,
        alpha: float = 0.8,
    ) -> None:
        super().__init__(threading.RLock())
        self.name = name
        self.dataset_meta: Mapping[str, Any] = {}
        self._style = Style(bbox_color, text_color, mask_color, line_width, alpha)
        self._backends = _built(vis_backends, None if save_dir is None else str(Path(save_dir, "vis_data")))
        if image is not None:
            self.set_image(image)
        Visualizer._newest = weakref.ref(self)

    def get_backend(self, name: str) -> Any:
        """Return a backend by its name, that of its class where it was given none; None where there is none."""
        return self._backends.get(name)

    @property
    def backends(self) -> Mapping[str, Any]:
        """The backends by name."""
        return dict(self._backends)

    @property
    def is_active(self) -> bool:
        """Whether this process writes: the first rank does."""
        return _is_first_rank()

    def add_config(self, config: Mapping[str, Any] | str) -> None:
        """Record the configuration of the run."""
        self._to_all(lambda backend: backend.add_config(config))

    def add_graph(self, model: Any, data_batch: Any = None) -> None:
        """Record the structure of a model; `skeleton` makes one that is safe in the background."""
        self._to_all(lambda backend: backend.add_graph(model, data_batch))

    def add_image(self, name: str, image: Any, step: int = 0) -> None:
        """Record an image: height x width x 3 (or 1), RGB, 0 to 255."""
        checked = image_of(image)
        self._to_all(lambda backend: backend.add_image(name, checked, step))

    def add_scalar(self, name: str, value: Any, step: int = 0) -> None:
        """Record one number."""
        self._to_all(lambda backend: backend.add_scalar(name, value, step))

    def add_scalars(
        self,
        scalar_dict: Mapping[str, Any],
        step: int = 0,
        file_path: str | os.PathLike[str] | None = None,
    ) -> None:
        """Record several numbers of one step.

        Args:
            scalar_dict: numbers by name. An entry ``mode`` ("train", "val", "test") keeps their curves apart.
            step: iteration or epoch.
            file_path: a further JSON file, for backends that write such.
        """
        self._to_all(lambda backend: backend.add_scalars(scalar_dict, step, file_path))

    def add_datasample(
        self,
        name: str,
        image: Any,
        data_sample: Any = None,
        draw_gt: bool = True,  # noqa: FBT001, FBT002 - MMEngine's order of arguments
        draw_pred: bool = True,  # noqa: FBT001, FBT002
        show: bool = False,  # noqa: FBT001, FBT002
        wait_time: float = 0,
        out_file: str | os.PathLike[str] | None = None,
        pred_score_thr: float = 0.3,
        step: int = 0,
    ) -> None:
        """Draw a data sample, ground truth on the left and predictions on the right, and record the image.

        Args:
            name: name of the image.
            image: height x width x 3, RGB.
            data_sample: a dict or object with ``gt_instances``, ``pred_instances``, ``pred_sem_seg`` ...
            draw_gt: whether the ground truth is drawn.
            draw_pred: whether predictions are.
            show: not possible here: windows belong to the main thread, and this runs beside it.
            wait_time: MMEngine's, of a window.
            out_file: local file that gets the image, in place of the backends.
            pred_score_thr: predictions with no higher score are left out.
            step: iteration or number of the image.

        Raises:
            ConfigError: ``show`` was asked for.
        """
        del wait_time
        if show:
            raise ConfigError(
                "add_datasample(show=True): no window is opened from the background. Leave show out and look at what "
                "a backend or out_file received; visualizer.get_image() is the newest drawing."
            )
        with self._lock:
            drawn = draw_sample(
                image,
                data_sample,
                meta=self.dataset_meta,
                style=self._style,
                draw_gt=draw_gt,
                draw_pred=draw_pred,
                score_thr=pred_score_thr,
            )
            self.set_image(drawn)
            if out_file is None:
                self.add_image(name, drawn, step)
            elif _is_first_rank():
                path = Path(out_file)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encode_image(drawn, path.suffix))

    def close(self) -> None:
        """Flush and release what the backends have open. May be called twice; a later call opens it again."""
        self._to_all(lambda backend: backend.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @classmethod
    def get_instance(cls, name: str, **options: Any) -> Visualizer:
        """Return the visualizer that `get_instance` made under this name, made now if there is none."""
        with Visualizer._named_lock:
            if name not in Visualizer._named:
                Visualizer._named[name] = cls(name=name, **options)
            return Visualizer._named[name]

    @classmethod
    def get_current_instance(cls) -> Visualizer:
        """Return the newest visualizer that is still in use. Hooks and runs do not ask: they are given theirs.

        Raises:
            ConfigError: there is none.
        """
        newest = Visualizer._newest() if Visualizer._newest is not None else None
        if newest is None:
            raise ConfigError(
                "There is no Visualizer yet; make one, or call Visualizer.get_instance(name, ...)."
            )
        return newest

    def _to_all(self, call: Callable[[Any], object]) -> None:
        if not _is_first_rank():
            return
        failures: list[Exception] = []
        with self._lock:
            for backend in self._backends.values():
                try:
                    call(backend)
                except Exception as error:  # noqa: BLE001 - raised below, when every backend had its record
                    error.add_note(f"in the visualization backend {type(backend).__name__}")
                    failures.append(error)
        if len(failures) > 1:
            raise ExceptionGroup("several visualization backends failed", failures)
        if failures:
            raise failures[0]


def _built(vis_backends: Any, save_dir: str | None) -> dict[str, Any]:
    given = [vis_backends] if isinstance(vis_backends, Mapping | VisBackend) else vis_backends or []
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise TypeError(f"Visualizer(vis_backends={vis_backends!r}): give a list of backends or dicts.")
    found: dict[str, Any] = {}
    for each in given:
        name, backend = _backend(each)
        if getattr(backend, "save_dir", "") is None:
            backend.save_dir = save_dir
        if getattr(backend, "needs_save_dir", False) and backend.save_dir is None:
            raise ConfigError(
                f"{type(backend).__name__} writes to a local folder: give it or the Visualizer a save_dir."
            )
        if name in found:
            raise ConfigError(
                f"Two visualization backends are called {name!r}; give one dict(..., name=...)."
            )
        found[name] = backend
    return found


def _backend(given: Any) -> tuple[str, Any]:
    if isinstance(given, Mapping):
        options = dict(given)
        name = options.pop("name", None)
        backend = VISBACKENDS.build(options)
        return name or type(backend).__name__, backend
    if not hasattr(given, "add_scalars"):
        raise TypeError(f"A visualization backend is an object or dict(type=...), not {given!r}.")
    return type(given).__name__, given


def _is_first_rank() -> bool:
    torch = sys.modules.get("torch")  # who has not loaded it runs no distributed training
    distributed = getattr(torch, "distributed", None)
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return True
    return bool(distributed.get_rank() == 0)
