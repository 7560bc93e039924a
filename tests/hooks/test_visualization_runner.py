"""Pictures and numbers of one Runner: the same files in both modes, in their order, from one visualizer."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from asynchooks.execution import HookExecutor
from asynchooks.hooks import LoggerHook
from asynchooks.runner import Runner, TrainState
from asynchooks.visualization import LocalVisBackend, Visualizer, encode_image


class Scenes(Dataset[dict[str, Any]]):
    """Images in files, with their classes and colors."""

    metainfo: ClassVar[Any] = {"classes": ("thing",), "palette": [(0, 0, 255)]}

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.paths = [folder / f"{index}.png" for index in range(6)]
        for index, path in enumerate(self.paths):
            path.write_bytes(encode_image(np.full((40, 60, 3), 10 * index, np.uint8)))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"inputs": torch.zeros(3, 4, 4), "data_samples": {"img_path": str(self.paths[index])}}


class Detector(nn.Module):
    """Finds the same box everywhere, and reuses the tensor that it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.box = torch.zeros(1, 4)

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, torch.Tensor]:
        optim_wrapper.update_params((self.weight**2).sum())
        return {"loss": self.weight.detach().sum()}

    def val_step(self, data: Any) -> list[dict[str, Any]]:
        self.box.copy_(torch.tensor([[10.0, 10, 50, 30]]))
        found = {"bboxes": self.box, "scores": torch.ones(1), "labels": torch.zeros(1, dtype=torch.int)}
        return [{**each, "pred_instances": found} for each in data["data_samples"]]

    test_step = val_step


def batches(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "inputs": torch.stack([item["inputs"] for item in items]),
        "data_samples": [item["data_samples"] for item in items],
    }


@pytest.fixture
def make_runner(tmp_path: Path) -> Callable[..., Runner]:
    """Make a runner that draws every second validation batch and every test image."""

    def make(mode: Any, **changes: Any) -> Runner:
        loader = DataLoader(Scenes(tmp_path / "images"), batch_size=2, collate_fn=batches)
        options: dict[str, Any] = {
            "model": Detector(),
            "work_dir": tmp_path / mode,
            "train_dataloader": loader,
            "val_dataloader": loader,
            "val_evaluator": lambda outputs, batch: {"boxes": float(len(outputs))},
            "test_dataloader": loader,
            "test_evaluator": lambda outputs, batch: {"boxes": float(len(outputs))},
            "train_cfg": {"by_epoch": True, "max_epochs": 2},
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.01}},
            "default_hooks": {
                "checkpoint": None,
                "visualization": {"type": "DetVisualizationHook", "draw": True, "interval": 2},
            },
            "visualizer": {
                "type": "DetLocalVisualizer",
                "vis_backends": [{"type": "LocalVisBackend"}, {"type": "TensorboardVisBackend"}],
                "line_width": 1,
                "alpha": 1,
            },
            "mode": mode,
        }
        return Runner(**{**options, **changes})

    return make


def pictures(runner: Runner) -> dict[str, bytes]:
    folder = Path(str(runner.log_dir), "vis_data", "vis_image")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_both_modes_leave_the_same_pictures(make_runner: Callable[..., Runner]) -> None:
    found = []
    for mode in ("sync", "async"):
        runner = make_runner(mode)
        runner.train()
        runner.test()
        found.append(pictures(runner))

    assert found[0] == found[1]
    assert list(found[0]) == [
        *[f"test_img_{number}.png" for number in range(1, 7)],
        *["val_img_4.png", "val_img_6.png", "val_img_8.png"],
    ]


def test_boxes_have_the_color_of_their_class_in_the_data_set(make_runner: Callable[..., Runner]) -> None:
    runner = make_runner("async")
    runner.test()

    path = Path(str(runner.log_dir), "vis_data", "vis_image", "test_img_3.png")
    with Image.open(path) as opened:
        image = np.asarray(opened)
    assert image[30, 20].tolist() == [0, 0, 255]
    assert image[35, 5].tolist() == [20, 20, 20]


def test_tensorboard_has_pictures_and_numbers_in_the_order_of_their_steps(
    make_runner: Callable[..., Runner],
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    runner = make_runner("async")
    runner.train()
    (path,) = Path(str(runner.log_dir), "vis_data").glob("events.*")
    events = EventAccumulator(str(path)).Reload()

    assert [image.step for image in events.Images("val_img")] == [4, 6, 8]
    assert [number.step for number in events.Scalars("val/boxes")] == [1, 2]


def test_a_visualizer_of_a_loop_of_ones_own_receives_its_numbers(tmp_path: Path) -> None:
    with Visualizer(vis_backends=[LocalVisBackend(tmp_path / "own")]) as visualizer:
        state = TrainState(model=nn.Linear(1, 1), work_dir=tmp_path / "run", visualizer=visualizer)
        with HookExecutor([LoggerHook(interval=1)]) as executor:
            executor.fire("after_train_iter", state, batch_idx=0, outputs={"loss": 0.5})

    assert len((tmp_path / "own" / "scalars.json").read_text().splitlines()) == 1
    assert not list((tmp_path / "run").rglob("*.json"))


@pytest.fixture
def second_rank() -> Iterator[None]:
    """Be the second of two processes, as far as torch.distributed says."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", rank=1, world_size=2, store=FakeStore())
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("second_rank")
def test_only_the_first_rank_writes_and_draws(make_runner: Callable[..., Runner], tmp_path: Path) -> None:
    runner = make_runner("async")
    runner.test()
    visualizer = Visualizer(vis_backends=[LocalVisBackend(tmp_path / "own")])
    visualizer.add_scalar("a", 1)
    visualizer.add_datasample("a", np.zeros((4, 4, 3), np.uint8), out_file=tmp_path / "own" / "a.png")

    assert not Path(str(runner.log_dir)).exists()
    assert not (tmp_path / "own").exists()


def test_numbers_need_no_pillow_and_pictures_say_that_they_do(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['PIL'] = None\n"
        "from asynchooks.hooks import DetVisualizationHook\n"
        "from asynchooks.visualization import LocalVisBackend, Visualizer\n"
        f"Visualizer(vis_backends=[LocalVisBackend({str(tmp_path)!r})]).add_scalar('a', 1)\n"
        "DetVisualizationHook()\n"
        "DetVisualizationHook(draw=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert (tmp_path / "scalars.json").exists()
    assert "pip install 'asynchooks[visualization]'" in done.stderr.splitlines()[-1]
