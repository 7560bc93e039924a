"""The same configuration writes the same lines, to files of the same names; and so do the backends."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MMEngine's own, on import
    import mmengine.config
    import mmengine.visualization

from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from asynchooks import visualization

# Not "loss": MMEngine shows the mean over several validations of a metric of that name, ours the newest.
ACCURACIES = [{"acc": 0.25}, {"acc": 0.5}, {"acc": 0.75}]
ITERS = {"by_epoch": False, "max_iters": 14, "val_interval": 5}


def numbers(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines without what says only here which loop they are of."""
    return [{name: value for name, value in line.items() if name != "mode"} for line in lines]


def same_lines(theirs: Any, ours: Any) -> None:
    assert len(theirs.lines) > 1
    assert len(ours.lines) == len(theirs.lines)
    for mine, other in zip(numbers(ours.lines), theirs.lines, strict=True):
        assert mine == pytest.approx(other)


@pytest.mark.parametrize(
    "logger",
    [
        {"interval": 2},
        {"interval": 2, "ignore_last": False},
        {"interval": 4, "ignore_last": False, "log_metric_by_epoch": False},
        {"interval": 6},
        {"interval": 50},
        {"interval": 1, "interval_exp_name": 3},
    ],
    ids=str,
)
def test_the_same_lines_are_written_in_epochs(side_by_side: Any, scripted: Any, logger: Any) -> None:
    hooks = {"logger": {"type": "LoggerHook", **logger}}
    theirs, ours = side_by_side(default_hooks=hooks, metric=scripted(ACCURACIES))

    same_lines(theirs, ours)


@pytest.mark.parametrize("by_epoch", [True, False])
def test_the_same_lines_are_written_in_iterations(side_by_side: Any, scripted: Any, by_epoch: bool) -> None:
    hooks = {"logger": {"type": "LoggerHook", "interval": 3, "log_metric_by_epoch": by_epoch}}
    processor = {"by_epoch": False}
    theirs, ours = side_by_side(
        default_hooks=hooks, metric=scripted(ACCURACIES), train_cfg=ITERS, log_processor=processor
    )

    same_lines(theirs, ours)


def test_the_files_have_the_same_names(side_by_side: Any, scripted: Any) -> None:
    theirs, ours = side_by_side(default_hooks={"logger": {"type": "LoggerHook"}}, metric=scripted(ACCURACIES))

    def names(runner: Any) -> set[str]:
        folder = Path(runner.log_dir)
        found = (path for path in folder.rglob("*") if path.is_file() and path.name != "config.py")
        return {
            path.relative_to(folder).as_posix().replace(str(runner.timestamp), "TIMESTAMP") for path in found
        }

    assert names(ours.runner) == {"TIMESTAMP.log", "vis_data/TIMESTAMP.json", "vis_data/scalars.json"}
    assert names(ours.runner) == names(theirs.runner)


def record(backend: Any, config: Any) -> None:
    """Record one of each."""
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    backend.add_scalar("acc", 0.5, step=1)
    backend.add_scalars({"loss": 0.25, "lr": 0.1}, step=2, file_path="own.json")
    backend.add_scalars({"loss": 0.125}, step=3)
    backend.add_image("img", image, step=4)
    backend.add_config(config)
    backend.close()


def test_the_local_backend_leaves_the_same_files(tmp_path: Path) -> None:
    config = mmengine.config.Config({"a": 1, "model": {"type": "Net", "sizes": [1, 2]}})
    record(mmengine.visualization.LocalVisBackend(str(tmp_path / "theirs")), config)
    record(visualization.LocalVisBackend(tmp_path / "ours"), config)
    found = []
    for folder in (tmp_path / "theirs", tmp_path / "ours"):
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        with Image.open(files.pop("vis_image/img_4.png")) as opened:
            pixels = np.asarray(opened.convert("RGB")).tolist()
        found.append(({name: path.read_text() for name, path in files.items()}, pixels))

    assert found[0] == found[1]


def test_the_tensorboard_backend_records_the_same_events(tmp_path: Path) -> None:
    config = mmengine.config.Config({"a": 1})
    theirs = mmengine.visualization.TensorboardVisBackend(str(tmp_path / "theirs"))
    record(theirs, config)
    record(visualization.TensorboardVisBackend(tmp_path / "ours"), config)
    found = []
    for folder in (tmp_path / "theirs", tmp_path / "ours"):
        events = EventAccumulator(str(folder)).Reload()
        scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
        (image,) = events.Images("img")
        path = folder / "img.png"
        path.write_bytes(image.encoded_image_string)
        with Image.open(path) as opened:
            found.append((scalars, image.step, np.asarray(opened).tolist()))

    assert found[0] == found[1]


def test_a_box_covers_the_pixels_that_matplotlib_gives_it() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    found = []
    for module in (mmengine.visualization, visualization):
        visualizer = module.Visualizer(image=image)
        visualizer.draw_bboxes(np.array([[10, 10, 50, 40]]), edge_colors="none", face_colors="r", alpha=1)
        found.append(visualizer.get_image()[..., 0] > 127)

    theirs, ours = found
    assert (theirs ^ ours).sum() <= 2 * (
        30 + 40 + 4
    )  # one pixel along the edges: where a corner lies differs
    assert ours[10:41, 10:51].all()
