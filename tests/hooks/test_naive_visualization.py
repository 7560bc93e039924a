"""What a test shows of its inputs, and what a training shows of its model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from asynchooks.errors import ConfigError
from asynchooks.execution import HookExecutor
from asynchooks.hooks import NaiveVisualizationHook
from asynchooks.runner import TrainState
from asynchooks.visualization import LocalVisBackend, VisBackend, Visualizer

NORM: dict[str, Any] = {"mean": [10.0, 20.0, 30.0], "std": [2.0, 2.0, 2.0], "to_rgb": True}


@pytest.fixture
def show(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Fire some test batches and return the images that were written, by name."""

    def fire(hook: Any, *batches: tuple[Any, Any], **style: Any) -> dict[str, Any]:
        options: dict[str, Any] = {"bbox_color": (255, 0, 0), "line_width": 1, "alpha": 1, **style}
        visualizer = Visualizer(vis_backends=[LocalVisBackend(tmp_path)], **options)
        state = TrainState(model=nn.Linear(1, 1), work_dir=tmp_path / "run", visualizer=visualizer)
        with HookExecutor([hook]) as executor:
            for index, (batch, outputs) in enumerate(batches):
                executor.fire("after_test_iter", state, batch_idx=index, data_batch=batch, outputs=outputs)
        found = {}
        for path in sorted((tmp_path / "vis_image").glob("*.png")):
            with Image.open(path) as opened:
                found[path.name] = np.asarray(opened)
        return found

    return fire


def prepared(height: int = 8, width: int = 10) -> tuple[Any, torch.Tensor]:
    """An image, and how a network is fed it: normalized, and padded by 4."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    values = (image.astype(np.float32) - NORM["mean"]) / NORM["std"]
    padded = torch.zeros(3, height + 4, width + 4)
    padded[:, :height, :width] = torch.from_numpy(values).permute(2, 0, 1)
    return image, padded


def test_an_input_is_shown_as_the_image_that_it_was(show: Any) -> None:
    image, fed = prepared()
    known = {"img_path": "a/cat.jpg", "img_norm_cfg": NORM, "img_shape": (8, 10), "ori_shape": (8, 10)}
    shown = show(NaiveVisualizationHook(), ({"inputs": [fed], "data_samples": [known]}, None))

    assert list(shown) == ["cat.jpg_1.png"]
    assert (shown["cat.jpg_1.png"] == image).all()


def test_predictions_fit_the_size_of_the_original_image(show: Any) -> None:
    known = {"img_norm_cfg": NORM, "img_shape": (8, 10), "ori_shape": (80, 100)}
    boxes = {"bboxes": torch.tensor([[20.0, 20, 90, 70]]), "labels": [0], "scores": torch.tensor([1.0])}
    shown = show(
        NaiveVisualizationHook(),
        ([{"inputs": prepared()[1], "data_sample": known}], [{"pred_instances": boxes}]),
    )

    image = shown["test_img_1.png"]
    assert image.shape == (80, 100, 3)
    assert image[70, 50].tolist() == [255, 0, 0]


def test_truth_and_prediction_are_drawn_as_asked(show: Any) -> None:
    boxes = {"bboxes": torch.tensor([[1.0, 1, 6, 6]]), "labels": [0], "scores": torch.tensor([1.0])}
    batch = {"inputs": torch.zeros(1, 3, 8, 10), "data_samples": [{"gt_instances": boxes}]}
    outputs = [{"pred_instances": boxes}]

    both = show(NaiveVisualizationHook(), (batch, outputs))["test_img_1.png"]
    assert both.shape == (8, 20, 3)
    alone = show(NaiveVisualizationHook(draw_gt=False), (batch, outputs))["test_img_1.png"]
    assert alone.shape == (8, 10, 3)


def test_every_nth_batch_is_shown_and_images_are_numbered(show: Any) -> None:
    batches = [(torch.full((2, 3, 4, 4), value / 255), None) for value in (10, 20, 30, 40)]
    shown = show(NaiveVisualizationHook(interval=2), *batches)

    assert {name: int(image[0, 0, 0]) for name, image in shown.items()} == {
        "test_img_1.png": 20,
        "test_img_2.png": 20,
        "test_img_3.png": 40,
        "test_img_4.png": 40,
    }


def test_classes_are_written_on_the_image(show: Any) -> None:
    batch = (torch.zeros(1, 3, 60, 120), torch.tensor([1]))
    shown = show(NaiveVisualizationHook(), (batch, torch.tensor([[0.1, 0.9]])), text_color=(255, 255, 255))

    image = shown["test_img_1.png"]
    assert image.shape == (60, 240, 3)
    assert min(image[:20, :100].max(), image[:20, 120:220].max()) > 200


def test_what_holds_no_images_is_said(show: Any) -> None:
    with pytest.raises(ValueError, match="it is a str"):
        show(NaiveVisualizationHook(), ("text", None))


class Seeing(VisBackend):
    """Keeps the models that it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.models: list[Any] = []

    def add_graph(self, model: Any, data_batch: Any) -> None:
        self.models.append(model)


def test_a_training_shows_the_structure_of_its_model_without_its_weights(tmp_path: Path) -> None:
    backend = Seeing()
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    visualizer = Visualizer(vis_backends=[backend, LocalVisBackend(tmp_path)])
    state = TrainState(model=model, work_dir=tmp_path / "run", visualizer=visualizer)
    with HookExecutor([NaiveVisualizationHook()]) as executor:
        executor.fire("before_train", state)

    (shown,) = backend.models
    assert str(shown) == str(model)
    assert {name: p.shape for name, p in shown.named_parameters()} == {
        name: p.shape for name, p in model.named_parameters()
    }
    assert {tensor.device.type for tensor in shown.state_dict().values()} == {"meta"}
    assert (tmp_path / "model.txt").read_text() == f"{model}\n"


@pytest.mark.parametrize(
    ("options", "error"),
    [({"interval": 0}, ConfigError), ({"interval": "1"}, TypeError), ({"draw_gt": 1}, TypeError)],
)
def test_a_wrong_argument_is_named_at_construction(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        NaiveVisualizationHook(**options)
