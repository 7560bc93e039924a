"""What the local and the TensorBoard backends leave behind, read back by others' readers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from asynchooks.errors import ConfigError, UnknownOptionError
from asynchooks.visualization import LocalVisBackend, TensorboardVisBackend, VisBackend, Visualizer


def image() -> Any:
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_scalars_are_lines_of_standard_json(tmp_path: Path) -> None:
    backend = LocalVisBackend(tmp_path)
    backend.add_scalar("acc", float(torch.tensor(0.5)), step=3)
    backend.add_scalars({"loss": float("nan"), "per_class": np.array([1, 2]), "name": "x"}, 4, "train.json")

    assert lines(tmp_path / "scalars.json") == [
        {"acc": 0.5, "step": 3},
        {"loss": "nan", "per_class": [1, 2], "name": "x", "step": 4},
    ]
    assert lines(tmp_path / "train.json") == lines(tmp_path / "scalars.json")[1:]


def test_a_record_can_be_read_before_the_backend_is_closed_and_closing_loses_none(tmp_path: Path) -> None:
    backend = LocalVisBackend(tmp_path)
    for step in range(3):
        backend.add_scalar("a", step, step)
        assert len(lines(tmp_path / "scalars.json")) == step + 1
        backend.close()
        backend.close()


def test_a_file_that_was_taken_away_is_begun_anew(tmp_path: Path) -> None:
    backend = LocalVisBackend(tmp_path)
    backend.add_scalar("a", 1, 1)
    (tmp_path / "scalars.json").unlink()
    backend.add_scalar("a", 2, 2)

    assert lines(tmp_path / "scalars.json") == [{"a": 2, "step": 2}]


def test_images_and_the_configuration_are_files(tmp_path: Path) -> None:
    backend = LocalVisBackend(tmp_path)
    backend.add_image("val/img", image(), step=7)
    backend.add_config({"lr": 0.1, "model": {"type": "Net"}})

    with Image.open(tmp_path / "vis_image" / "val" / "img_7.png") as written:
        assert (np.asarray(written) == image()).all()
    namespace: dict[str, Any] = {}
    exec((tmp_path / "config.py").read_text(), namespace)
    assert (namespace["lr"], namespace["model"]) == (0.1, {"type": "Net"})
    assert [p.name for p in tmp_path.rglob("*") if p.name.startswith(".")] == []


def test_nothing_is_written_outside_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leaves it"):
        LocalVisBackend(tmp_path / "in").add_image("../../x", image())


def test_tensorboard_reads_scalars_images_and_texts(tmp_path: Path) -> None:
    backend = TensorboardVisBackend(tmp_path)
    backend.add_scalars({"loss": 0.5, "name": "x", "acc": torch.tensor(0.25)}, step=3)
    backend.add_scalars({"mode": "val", "loss": 2, "val/f1": 1.0}, step=1)
    backend.add_image("img", image(), step=2)
    backend.add_config("a = 1")
    backend.close()
    backend.add_scalar("loss", 0.25, step=4)
    events = EventAccumulator(str(tmp_path)).Reload()

    assert len(list(tmp_path.iterdir())) == 1
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(3, 0.5), (4, 0.25)]
    assert set(events.Tags()["scalars"]) == {"loss", "acc", "val/loss", "val/f1"}
    (shown,) = events.Images("img")
    (tmp_path / "x.png").write_bytes(shown.encoded_image_string)
    with Image.open(tmp_path / "x.png") as written:
        assert (np.asarray(written) == image()).all()
    assert events.Tags()["tensors"] == ["config"]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # PyTorch's writer makes graphs by it
def test_pytorchs_own_writer_goes_to_the_same_file(tmp_path: Path) -> None:
    backend = TensorboardVisBackend(tmp_path)
    backend.add_scalar("loss", 0.5, step=1)
    backend.experiment.add_histogram("weights", torch.arange(10.0), 2)
    backend.add_graph(torch.nn.Linear(2, 1), torch.zeros(1, 2))
    backend.close()
    backend.add_scalar("loss", 0.25, step=3)
    events = EventAccumulator(str(tmp_path)).Reload()

    assert len(list(tmp_path.iterdir())) == 1
    assert [e.step for e in events.Scalars("loss")] == [1, 3]
    assert [e.step for e in events.Histograms("weights")] == [2]
    assert "aten::linear" in {node.op for node in events.Graph().node}


def test_a_visualizer_gives_each_backend_its_folder_and_its_name(tmp_path: Path) -> None:
    own = LocalVisBackend(tmp_path / "own")
    backends = [{"type": "LocalVisBackend", "name": "mine"}, own, {"type": "TensorboardVisBackend"}]
    visualizer = Visualizer(vis_backends=backends, save_dir=tmp_path / "run")
    with visualizer:
        visualizer.add_scalars({"loss": 1.0}, step=1)

    assert list(visualizer.backends) == ["mine", "LocalVisBackend", "TensorboardVisBackend"]
    assert visualizer.get_backend("mine").experiment is visualizer.get_backend("mine")
    for folder in (tmp_path / "own", tmp_path / "run" / "vis_data"):
        assert lines(folder / "scalars.json") == [{"loss": 1.0, "step": 1}]
    assert list((tmp_path / "run" / "vis_data").glob("events.*"))


class Broken(VisBackend):
    """Refuses everything."""

    def add_scalar(self, name: str, value: float, step: int = 0) -> None:
        raise OSError("no connection")


def test_a_backend_that_fails_keeps_no_other_from_its_record(tmp_path: Path) -> None:
    visualizer = Visualizer(vis_backends=[Broken(), LocalVisBackend(tmp_path)])
    with pytest.raises(OSError, match="no connection") as caught:
        visualizer.add_scalar("a", 1)
    visualizer.close()

    assert lines(tmp_path / "scalars.json") == [{"a": 1, "step": 0}]
    assert caught.value.__notes__ == ["in the visualization backend Broken"]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Visualizer(vis_backends=[{"type": "LocalVisBackend"}]), ConfigError, "save_dir"),
        (lambda: Visualizer(vis_backends=[Broken(), Broken()]), ConfigError, "called 'Broken'"),
        (lambda: Visualizer(vis_backends="LocalVisBackend"), TypeError, "list of backends"),
        (lambda: Visualizer(vis_backends=[3]), TypeError, "not 3"),
        (lambda: LocalVisBackend(scalar_save_file="x.txt"), ConfigError, "scalar_save_file"),
        (
            lambda: Visualizer(vis_backends={"type": "LocalVisBackend", "save_dri": "x"}),
            UnknownOptionError,
            "save_dir",
        ),
    ],
)
def test_a_wrong_argument_is_named_at_construction(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


def test_an_instance_is_found_by_its_name_and_an_error_holds_no_lock() -> None:
    with pytest.raises(TypeError):
        Visualizer.get_instance("broken", vis_backends=3)
    made = Visualizer.get_instance("one")

    assert Visualizer.get_instance("one") is made
    assert Visualizer.get_current_instance() is made
