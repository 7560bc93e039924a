"""Another pipeline from some epoch on, and in a run that was resumed after it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from asynchooks.execution import Effects, Hook
from asynchooks.hooks import PipelineSwitchHook, YOLOXModeSwitchHook
from asynchooks.runner import Runner


class Samples(Dataset[Tensor]):
    """Samples that a pipeline makes."""

    def __init__(self) -> None:
        self.pipeline: Callable[[Tensor], Tensor] = zero
        self.skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return self.pipeline(torch.zeros(2))

    def update_skip_type_keys(self, keys: tuple[str, ...]) -> None:
        self.skipped = tuple(keys)


def zero(data: Tensor) -> Tensor:
    return data


def one(data: Tensor) -> Tensor:
    return data + 1


class Detector(nn.Module):
    def __init__(self, **head: bool) -> None:
        super().__init__()
        self.bbox_head = nn.Linear(2, 1)
        vars(self.bbox_head).update(head)

    def forward(self, batch: Tensor) -> Tensor:
        loss: Tensor = self.bbox_head(batch).square().mean()
        return loss


class Seen(Hook):
    """Notes the data of each epoch."""

    effects = Effects()

    def __init__(self) -> None:
        self.by_epoch: dict[int, set[float]] = {}

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.by_epoch.setdefault(runner.epoch, set()).update(data_batch.flatten().tolist())


def run(
    folder: Path, *hooks: Any, epochs: int = 4, loader: Any = None, **options: Any
) -> dict[int, set[float]]:
    seen = Seen()
    runner = Runner(
        model=options.pop("model", None) or Detector(use_l1=False),
        work_dir=folder,
        train_dataloader=loader or DataLoader(Samples(), batch_size=2),
        train_cfg={"by_epoch": True, "max_epochs": epochs},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
        default_hooks={"logger": None},
        custom_hooks=[*hooks, seen],
        **options,
    )
    runner.train()
    return seen.by_epoch


def test_the_pipeline_is_another_one_from_its_epoch_on(tmp_path: Path) -> None:
    seen = run(tmp_path, PipelineSwitchHook(2, [one]))

    assert seen == {0: {0.0}, 1: {0.0}, 2: {1.0}, 3: {1.0}}


def test_persistent_workers_get_the_new_pipeline(tmp_path: Path) -> None:
    loader = DataLoader(
        Samples(), batch_size=2, num_workers=1, persistent_workers=True, multiprocessing_context="spawn"
    )
    seen = run(tmp_path, PipelineSwitchHook(1, [one]), epochs=2, loader=loader)

    assert seen == {0: {0.0}, 1: {1.0}}


def test_a_run_that_is_resumed_after_the_switch_has_switched(tmp_path: Path) -> None:
    hook = PipelineSwitchHook(1, [one])
    run(tmp_path, hook, epochs=3)

    assert run(tmp_path, hook, epochs=4, resume=True) == {3: {1.0}}
    assert run(tmp_path, YOLOXModeSwitchHook(3, new_train_pipeline=[one]), epochs=5, resume=True) == {
        4: {1.0}
    }


@pytest.mark.parametrize("inside", [False, True])
def test_yolox_skips_transforms_and_uses_its_other_loss_in_the_last_epochs(
    tmp_path: Path, inside: bool
) -> None:
    detector = Detector(use_l1=False)
    hook, model = YOLOXModeSwitchHook(num_last_epochs=2), nn.Module() if inside else detector
    if inside:
        model.detector = detector
    samples = Samples()
    state = SimpleNamespace(
        model=model,
        train_dataloader=SimpleNamespace(dataset=samples),
        max_epochs=5,
        epoch=0,
        logger=SimpleNamespace(info=lambda *_: None),
    )
    hook.before_train(state)
    states: list[Any] = []
    for state.epoch in range(5):
        hook.before_train_epoch(state)
        states.append((detector.bbox_head.use_l1, samples.skipped))

    new = (True, ("Mosaic", "RandomAffine", "MixUp"))
    assert states == [(False, ()), (False, ()), new, new, new]


def test_mmyolos_head_has_another_name_for_its_loss(tmp_path: Path) -> None:
    model = Detector(use_bbox_aux=False)
    run(tmp_path, YOLOXModeSwitchHook(0, new_train_pipeline=[one]), epochs=1, model=model)

    assert model.bbox_head.use_bbox_aux
    assert not hasattr(model.bbox_head, "use_l1")


@pytest.mark.parametrize(
    ("hook", "changes", "error"),
    [
        (YOLOXModeSwitchHook(), {"model": nn.Linear(2, 1)}, "Linear has no bbox_head"),
        (YOLOXModeSwitchHook(), {"loader": [torch.zeros(2)]}, "no update_skip_type_keys"),
        (PipelineSwitchHook(1, []), {"loader": [torch.zeros(2)]}, "has no pipeline"),
    ],
)
def test_what_cannot_be_switched_is_said_before_the_training(
    tmp_path: Path, hook: Hook, changes: dict[str, Any], error: str
) -> None:
    with pytest.raises(ValueError, match=error):
        run(tmp_path, hook, **changes)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: PipelineSwitchHook(-1, []), "switch_epoch=-1"),
        (lambda: PipelineSwitchHook(1, [{"type": "Nothing"}]), "No transform is called 'Nothing'"),
        (lambda: YOLOXModeSwitchHook("15"), "num_last_epochs='15'"),  # type: ignore[arg-type]
        (lambda: YOLOXModeSwitchHook(skip_type_keys="Mosaic"), "list of names"),
        (lambda: YOLOXModeSwitchHook(new_train_pipeline=3), "list of transforms"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_argument_is_said_at_construction(make: Callable[[], Any], error: str) -> None:
    with pytest.raises((ValueError, KeyError), match=error):
        make()
