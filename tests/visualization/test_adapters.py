"""The backends of services that are not installed here: which calls they make of the client's interface."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asynchooks.errors import ConfigError
from asynchooks.visualization import (
    AimVisBackend,
    ClearMLVisBackend,
    DVCLiveVisBackend,
    MLflowVisBackend,
    NeptuneVisBackend,
    VisBackend,
    WandbVisBackend,
)

Calls = list[tuple[str, dict[str, Any]]]


def image() -> Any:
    return np.full((2, 3, 3), 255, np.uint8)


def use(backend: VisBackend, work_dir: Path) -> None:
    backend.add_config({"work_dir": str(work_dir), "shape": (1, 2)})
    backend.add_scalars({"loss": 0.5, "mode": "train", "text": "x"}, step=3)
    backend.add_image("img", image(), step=4)
    backend.close()
    backend.close()
    backend.add_scalar("acc", 1, step=5)


@pytest.mark.parametrize("kind", [AimVisBackend, ClearMLVisBackend, DVCLiveVisBackend, NeptuneVisBackend])
def test_a_package_that_is_not_there_is_named_at_construction(kind: type[VisBackend]) -> None:
    package = kind.package  # type: ignore[attr-defined]
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")

    with pytest.raises(ConfigError, match=rf"package {package}: pip install 'asynchooks\[{package}\]'"):
        kind()


def test_clearml(stand_ins: Calls, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for path in ("config.py", "inner/other.py"):
        (tmp_path / path).write_text("")
    use(ClearMLVisBackend(init_kwargs={"project_name": "p"}), tmp_path)

    assert stand_ins == [
        ("init", {"project_name": "p"}),
        ("connect_configuration", {"configuration": {"work_dir": str(tmp_path), "shape": [1, 2]}}),
        ("report_scalar", {"title": "train/loss", "series": "train/loss", "value": 0.5, "iteration": 3}),
        ("report_image", {"title": "img", "series": "img", "iteration": 4, "shape": (2, 3, 3)}),
        ("upload_artifact", {"name": "config.py", "artifact_object": str(tmp_path / "config.py")}),
        ("close", {}),
        ("init", {"project_name": "p", "continues": "task-1"}),
        ("report_scalar", {"title": "acc", "series": "acc", "value": 1, "iteration": 5}),
    ]


def test_neptune(stand_ins: Calls, tmp_path: Path) -> None:
    use(NeptuneVisBackend(init_kwargs={"project": "a/b", "api_token": "secret"}), tmp_path)
    text = f"work_dir = {str(tmp_path)!r}\nshape = (1, 2)\n"

    assert stand_ins == [
        ("init_run", {"project": "a/b"}),
        ("upload", {"path": "config", "value": ("content", text)}),
        ("append", {"path": "train/loss", "value": 0.5, "step": 3}),
        ("append", {"path": "images", "value": ("image", 1.0), "step": 4, "name": "img"}),
        ("stop", {}),
        ("init_run", {"project": "a/b", "with_id": "RUN-1"}),
        ("append", {"path": "acc", "value": 1, "step": 5}),
    ]


def test_neptune_without_arguments_is_offline_and_begins_a_further_run(
    stand_ins: Calls, tmp_path: Path
) -> None:
    use(NeptuneVisBackend(), tmp_path)

    assert [call for call in stand_ins if call[0] == "init_run"] == 2 * [("init_run", {"mode": "offline"})]


def test_dvclive(stand_ins: Calls, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("")
    use(DVCLiveVisBackend(tmp_path, init_kwargs={"save_dvc_exp": False}), tmp_path)
    folder = str(tmp_path)

    assert stand_ins == [
        ("Live", {"dir": folder, "save_dvc_exp": False}),
        ("log_params", {"params": {"work_dir": folder, "shape": [1, 2]}}),
        ("log_metric", {"name": "train/loss", "val": 0.5, "step": 3}),
        ("log_image", {"name": "img.png", "shape": (2, 3, 3), "step": 4}),
        ("log_artifact", {"path": str(tmp_path / "params.yaml")}),
        ("end", {}),
        ("Live", {"dir": folder, "save_dvc_exp": False, "resume": True}),
        ("log_metric", {"name": "acc", "val": 1, "step": 5}),
    ]


def test_aim(stand_ins: Calls, tmp_path: Path) -> None:
    use(AimVisBackend("/runs/yolo/vis_data", init_kwargs={"repo": "r"}), tmp_path)

    assert stand_ins == [
        ("Run", {"repo": "r", "experiment": "yolo_vis_data"}),
        ("set", {"key": "hparams", "value": {"work_dir": str(tmp_path), "shape": [1, 2]}}),
        ("track", {"value": 0.5, "name": "train/loss", "step": 3}),
        ("track", {"value": (2, 3, 3), "name": "img", "step": 4}),
        ("close", {}),
        ("Run", {"repo": "r", "experiment": "yolo_vis_data", "run_hash": "hash-1"}),
        ("track", {"value": 1, "name": "acc", "step": 5}),
    ]


def test_a_service_that_cannot_be_reached_is_left_in_peace_until_it_is_closed(stand_ins: Calls) -> None:
    backend = NeptuneVisBackend(init_kwargs={"no_such_argument": 1})
    with pytest.raises(TypeError, match="no_such_argument"):
        backend.add_scalar("a", 1)
    with pytest.raises(ConnectionError, match="NeptuneVisBackend could not be opened a moment ago"):
        backend.add_scalar("a", 2)
    backend.close()

    with pytest.raises(TypeError, match="no_such_argument"):
        backend.add_scalar("a", 3)


@pytest.mark.parametrize(
    "kind", [AimVisBackend, ClearMLVisBackend, DVCLiveVisBackend, NeptuneVisBackend, WandbVisBackend]
)
def test_arguments_for_the_client_are_a_dict_and_are_never_shown(
    stand_ins: Calls, kind: type[VisBackend]
) -> None:
    with pytest.raises(TypeError, match=r"init_kwargs=\.\.\..*give a dict") as refusal:
        kind(init_kwargs=["token=secret"])  # type: ignore[call-arg]

    assert "secret" not in str(refusal.value)
    assert stand_ins == []


@pytest.mark.parametrize("kind", [ClearMLVisBackend, DVCLiveVisBackend, MLflowVisBackend])
def test_endings_of_files_are_strings(stand_ins: Calls, kind: type[VisBackend]) -> None:
    with pytest.raises(TypeError, match="artifact_suffix=3.*such as"):
        kind(artifact_suffix=3)  # type: ignore[call-arg]
