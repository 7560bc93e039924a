"""Which images are read and drawn, when, and what they show."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from asynchooks.checkpoint import Content, open_store
from asynchooks.errors import ConfigError, UnknownOptionError
from asynchooks.execution import HookExecutor
from asynchooks.hooks import DetVisualizationHook, TrackVisualizationHook
from asynchooks.registry import HOOKS
from asynchooks.runner import TrainState
from asynchooks.visualization import LocalVisBackend, Visualizer, encode_image

RED = [255, 0, 0]


@pytest.fixture
def state(tmp_path: Path) -> TrainState:
    """A state whose visualizer draws opaque red boxes, one pixel wide."""
    visualizer = Visualizer(
        vis_backends=[LocalVisBackend(tmp_path / "shown")], bbox_color=(255, 0, 0), line_width=1, alpha=1
    )
    return TrainState(model=nn.Linear(1, 1), work_dir=tmp_path / "run", visualizer=visualizer)


@pytest.fixture
def sample(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Make a detection on an image of one grey, in a file."""

    def make(grey: int = 50, folder: str = "", field: str = "pred_instances") -> dict[str, Any]:
        path = tmp_path / "images" / folder / f"{grey}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_image(np.full((40, 60, 3), grey, np.uint8)))
        boxes = torch.tensor([[10.0, 10, 30, 30], [40, 5, 50, 20]])
        found = {"bboxes": boxes, "scores": torch.tensor([0.9, 0.2]), "labels": torch.tensor([0, 0])}
        return {"img_path": str(path), field: found}

    return make


def fire(state: TrainState, hook: Any, point: str, batches: list[Any], mode: Any = "async") -> None:
    with HookExecutor([hook], mode=mode) as executor:
        for index, outputs in enumerate(batches):
            executor.fire(point, state, batch_idx=index, data_batch=None, outputs=outputs)


def pictures(folder: Path) -> dict[str, Any]:
    found = {}
    for path in sorted(folder.rglob("*.png")):
        with Image.open(path) as opened:
            found[path.relative_to(folder).as_posix()] = np.asarray(opened.convert("RGB"))
    return found


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_the_first_image_of_a_validation_batch_is_drawn_where_it_is_due(
    state: TrainState, sample: Any, tmp_path: Path, mode: str
) -> None:
    batches = [[sample(grey), sample(200)] for grey in (50, 60, 70, 80, 90)]
    fire(state, DetVisualizationHook(draw=True, interval=2), "after_val_iter", batches, mode)

    shown = pictures(tmp_path / "shown" / "vis_image")
    assert list(shown) == ["val_img_0.png", "val_img_2.png", "val_img_4.png"]
    image = shown["val_img_2.png"]
    assert image.shape == (40, 60, 3)
    assert image[35, 2].tolist() == [70, 70, 70]
    assert image[30, 20].tolist() == RED
    assert image[5, 45].tolist() == [70, 70, 70]  # a score of 0.2 is too low


class Untouchable:
    """A sample that nobody may look at."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"looked at {name}")


@pytest.mark.parametrize("hook", [DetVisualizationHook(), DetVisualizationHook(draw=True, interval=50)])
def test_nothing_is_looked_at_when_nothing_is_due(state: TrainState, hook: Any) -> None:
    first: list[Any] = [] if hook.draw else [Untouchable()]
    fire(state, hook, "after_val_iter", [first, [Untouchable()], [Untouchable()]])


def test_every_test_image_is_drawn_in_order_with_its_number(
    state: TrainState, sample: Any, tmp_path: Path
) -> None:
    batches = [[sample(10), sample(20)], [sample(30)]]
    fire(state, DetVisualizationHook(draw=True), "after_test_iter", batches)

    shown = pictures(tmp_path / "shown" / "vis_image")
    assert [image[0, 0, 0] for image in shown.values()] == [10, 20, 30]
    assert list(shown) == [f"test_img_{number}.png" for number in (1, 2, 3)]


def test_a_folder_for_tests_receives_the_pictures_and_does_not_grow(
    state: TrainState, sample: Any, tmp_path: Path
) -> None:
    hook = DetVisualizationHook(draw=True, test_out_dir="drawn")
    for _ in range(2):
        with HookExecutor([hook]) as executor:
            executor.fire("before_test", state)
            for index, folder in enumerate(("a", "b")):
                outputs = [sample(10, folder)]
                executor.fire("after_test_iter", state, batch_idx=index, outputs=outputs)

    assert state.log_dir is not None
    assert list(pictures(Path(state.log_dir))) == ["drawn/10.png", "drawn/10_2.png"]
    assert not (tmp_path / "shown").exists()


def test_images_and_folders_may_be_on_a_store(state: TrainState, tmp_path: Path) -> None:
    image = np.full((40, 60, 3), 90, np.uint8)
    open_store("memory://data").put("x.png", Content.of(encode_image(image)))
    hook = DetVisualizationHook(draw=True, test_out_dir="memory://drawn")
    boxes = {"bboxes": np.array([[1, 1, 9, 9]]), "labels": [0], "scores": np.array([1.0])}
    outputs = [{"img_path": "memory://data/x.png", "pred_instances": boxes}]
    fire(state, hook, "after_test_iter", [outputs])

    data = b"".join(bytes(piece) for piece in open_store("memory://drawn").read("x.png"))
    (tmp_path / "x.png").write_bytes(data)
    assert pictures(tmp_path)["x.png"][1, 5].tolist() == RED


def test_an_image_that_cannot_be_read_warns_and_the_others_are_drawn(
    state: TrainState, sample: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    missing = {**sample(10), "img_path": str(tmp_path / "nowhere.png")}
    fire(
        state, DetVisualizationHook(draw=True), "after_test_iter", [[missing, sample(20)], [{}], [sample(30)]]
    )

    assert list(pictures(tmp_path / "shown" / "vis_image")) == ["test_img_2.png", "test_img_4.png"]
    assert "nowhere.png" in caplog.text


def test_predictions_are_copied_before_the_model_overwrites_them(
    state: TrainState, sample: Any, tmp_path: Path
) -> None:
    gate = threading.Event()

    class Waiting(Visualizer):
        def add_datasample(self, *arguments: Any, **options: Any) -> None:
            gate.wait(10)
            super().add_datasample(*arguments, **options)

    backend = LocalVisBackend(tmp_path / "shown")
    state.visualizer = Waiting(vis_backends=[backend], bbox_color=(255, 0, 0), line_width=1, alpha=1)
    outputs = sample()
    outputs["pred_instances"]["scores"].fill_(1)  # all of them: nothing is chosen, which copies as well
    with HookExecutor([DetVisualizationHook(draw=True)]) as executor:
        executor.fire("after_test_iter", state, batch_idx=0, outputs=[outputs])
        outputs["pred_instances"]["bboxes"].zero_()
        gate.set()

    assert pictures(tmp_path / "shown")["vis_image/test_img_1.png"][30, 20].tolist() == RED


def test_every_nth_frame_of_each_video_is_drawn(state: TrainState, sample: Any, tmp_path: Path) -> None:
    videos = [
        [sample(grey, "v/img1", "pred_track_instances") for grey in greys] for greys in ((1, 2, 3), (4, 5))
    ]
    for video in videos:
        for frame in video:
            frame["pred_track_instances"]["instances_id"] = torch.tensor([7, 8])
    hook = TrackVisualizationHook(draw=True, frame_interval=2)
    fire(state, hook, "after_test_iter", [[video] for video in videos])

    shown = pictures(tmp_path / "shown" / "vis_image")
    assert {name: int(image[0, 0, 0]) for name, image in shown.items()} == {
        "test_img_0.png": 1,
        "test_img_2.png": 3,
        "test_img_3.png": 4,
    }


def test_pictures_of_a_video_stand_in_a_folder_of_its_name(
    state: TrainState, sample: Any, tmp_path: Path
) -> None:
    hook = TrackVisualizationHook(draw=True, frame_interval=1, test_out_dir=str(tmp_path / "drawn"))
    fire(state, hook, "after_test_iter", [[[sample(1, "MOT-02/img1")]]])

    assert list(pictures(tmp_path / "drawn")) == ["MOT-02/1.png"]


class TrackImgSampler:
    """Named as MMDetection's, whose batches are single frames."""


def test_with_a_sampler_of_frames_every_nth_batch_is_drawn(
    state: TrainState, sample: Any, tmp_path: Path
) -> None:
    state.val_dataloader = type("Loader", (), {"sampler": TrackImgSampler()})()
    hook = TrackVisualizationHook(draw=True, frame_interval=2)
    fire(state, hook, "after_val_iter", [[[sample(grey)]] for grey in (1, 2, 3, 4)])

    shown = pictures(tmp_path / "shown" / "vis_image")
    assert {name: int(image[0, 0, 0]) for name, image in shown.items()} == {
        "val_img_1.png": 2,
        "val_img_3.png": 4,
    }


@pytest.mark.parametrize(
    ("kind", "options", "error", "words"),
    [
        ("DetVisualizationHook", {"intervall": 2}, UnknownOptionError, "'interval'"),
        ("DetVisualizationHook", {"interval": 0}, ConfigError, ">= 1"),
        ("DetVisualizationHook", {"interval": 1.5}, TypeError, "interval=1.5"),
        ("TrackVisualizationHook", {"frame_interval": "3"}, TypeError, "frame_interval='3'"),
        ("DetVisualizationHook", {"draw": "yes"}, TypeError, "draw='yes'"),
        ("DetVisualizationHook", {"score_thr": "0.3"}, TypeError, "score_thr"),
        ("DetVisualizationHook", {"show": True}, ConfigError, "test_out_dir"),
        ("TrackVisualizationHook", {"test_out_dir": 3}, TypeError, "test_out_dir=3"),
        ("DetVisualizationHook", {"backend_args": 3}, TypeError, "backend_args"),
    ],
)
def test_a_wrong_argument_is_named_at_construction(
    kind: str, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        HOOKS.build({"type": kind, **options})


def test_a_run_without_a_visualizer_is_told_what_to_give(state: TrainState, sample: Any) -> None:
    state.visualizer = None

    with pytest.raises(ConfigError, match="visualizer=dict"):
        fire(state, DetVisualizationHook(draw=True), "after_val_iter", [[sample()]])
