"""``asynchooks hooks``: the catalogue, one hook, the plan of a configuration."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from asynchooks._cli._app import app
from asynchooks._cli.hooks._catalogue import catalogue
from asynchooks.execution import Effects, Hook, background
from asynchooks.hooks import LoggerHook
from asynchooks.registry import HOOKS, MMCV_HOOKS, Registry

PARTS = """
import torch
from asynchooks import Effects, Hook
from asynchooks.registry import DATASETS, HOOKS, MODELS

@MODELS.register_module(force=True)
class PlanNet(torch.nn.Linear):
    def __init__(self):
        super().__init__(4, 1)

@DATASETS.register_module(force=True)
class PlanData(torch.utils.data.Dataset):
    def __init__(self):
        raise AssertionError("no data set is built")

@HOOKS.register_module(force=True)
class PlanReader(Hook):
    priority = "LOWEST"
    effects = Effects(reads={"checkpoints"})
    def after_train_epoch(self, runner):
        raise AssertionError("nothing is trained")

@HOOKS.register_module(force=True)
class PlanUnknown(Hook):
    priority = 95
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        raise AssertionError("nothing is trained")
"""
RUN = """
custom_imports = dict(imports=['cli_plan_parts'])
model = dict(type='PlanNet')
train_dataloader = dict(batch_size=4, dataset=dict(type='PlanData'))
train_cfg = dict(by_epoch=True, max_epochs=2)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
custom_hooks = [dict(type='PlanReader'), dict(type='PlanUnknown')]
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "cli_plan_parts.py").write_text(PARTS)
    (tmp_path / "plan.py").write_text(RUN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("cli_plan_parts", None)


def hooks(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["hooks", *arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})


def as_json(*arguments: str) -> Any:
    result = hooks(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_catalogue_knows_every_registered_hook_with_its_scope() -> None:
    names = {hook["name"] for hook in as_json()["hooks"]}
    own_to_mmcv = [n for n in MMCV_HOOKS if n not in HOOKS or HOOKS.get(n) is not MMCV_HOOKS.get(n)]
    classes = [name for name in HOOKS if isinstance(HOOKS.get(name), type)]

    assert {n for n in names if "." not in n} == {*classes}
    assert {n for n in names if n.startswith("mmcv.")} == {f"mmcv.{name}" for name in own_to_mmcv}


def test_hooks_of_other_packages_are_shown_once_they_are_imported() -> None:
    assert hooks("PlanReader", "--import", "cli_plan_parts").exit_code == 0
    assert "PlanReader  LOWEST (100)  reads checkpoints" in hooks("--filter", "planr").output
    assert "--import: custom_imports: 'not_there'" in hooks("--import", "not_there").output


def test_hooks_of_a_child_registry_have_its_scope() -> None:
    child = Registry("hook", parent=HOOKS, scope="catalogue_child")
    try:
        child.register_module("ChildHook", module=LoggerHook)
        assert "catalogue_child.ChildHook" in {entry.name for entry in catalogue()}
    finally:
        del HOOKS.children["catalogue_child"]


def test_an_entry_says_what_the_class_says() -> None:
    facts = next(h for h in as_json("--filter", "checkpointhook")["hooks"] if "." not in h["name"])

    assert (facts["name"], facts["priority"], facts["priority_name"]) == (
        "CheckpointHook",
        90,
        "VERY_LOW (90)",
    )
    assert facts["points"]["before_train"] == "blocking"
    assert facts["points"]["after_train_epoch"] == "capture"
    assert facts["effects"] == {"reads": [], "writes": ["checkpoints"]}
    assert facts["fires"] == ["after_save_checkpoint"]
    assert {"name": "interval", "default": "-1", "needed": False} in facts["arguments"]


def test_effects_that_arguments_decide_are_said_to_be_so() -> None:
    facts = next(h for h in as_json("--filter", "loggerhook")["hooks"] if h["name"] == "LoggerHook")

    assert facts["effects_by_arguments"]
    assert LoggerHook().effects == Effects(**facts["effects"])
    assert facts["on_error"] == "warn"


def test_a_hook_with_needed_arguments_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    class NeedyCatalogueHook(Hook):
        """Needs something.

        And says more.
        """

        def __init__(self, needed: int, *, extra: str = "x", **kwargs: Any) -> None:
            self.effects = Effects(writes={extra})

        @background
        def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
            """Capture."""

    monkeypatch.setitem(HOOKS._entries, "NeedyCatalogueHook", NeedyCatalogueHook)
    shown = hooks("NeedyCatalogueHook").output
    (entry,) = [each for each in catalogue() if each.name == "NeedyCatalogueHook"]

    assert (entry.effects, entry.by_arguments, entry.takes_others) == (None, True, True)
    assert "needed (needed)" in shown
    assert "extra = 'x'" in shown
    assert "effects: by arguments" in shown
    assert "Needs something." in shown
    assert "says more" not in shown
    assert "after_val_epoch: capture, then background" in shown


def test_one_hook_is_shown_with_its_arguments() -> None:
    shown = hooks("CheckpointHook").output

    assert "asynchooks.hooks.checkpoint" in shown
    assert "max_keep_ckpts = -1" in shown
    assert "VERY_LOW (90)" in shown
    assert "after_train_iter: capture, then background" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ChekpointHook"], "No hook is called 'ChekpointHook'. Did you mean 'CheckpointHook'?"),
        (["checkpointhook"], "Did you mean 'CheckpointHook'?"),
        (["none.py"], "none.py does not exist"),
        (["plan.py", "--cfg-options", "train_cfg.max_epoch=3"], "'max_epochs'"),
        (["--update", "plan.py"], "catalogue:begin"),
    ],
)
def test_what_is_wrong_ends_with_two_and_suggests_the_right_form(arguments: list[str], words: str) -> None:
    result = hooks(*arguments)

    assert result.exit_code == 2
    assert words in result.output


def steps_of(document: Any, point: str) -> dict[str, Any]:
    (found,) = [each for each in document["points"] if each["point"] == point]
    return {step["hook"]: step for band in found["bands"] for step in band["steps"]}


def test_the_plan_of_a_configuration_tells_bands_waits_and_overlaps() -> None:
    plan = as_json("plan.py")
    after_epoch, after_iter = steps_of(plan, "after_train_epoch"), steps_of(plan, "after_train_iter")

    assert [(c["hook"], c["rule"]) for c in after_epoch["PlanReader"]["training_thread_waits_for"]] == [
        ("CheckpointHook", 2)
    ]
    assert {(c["hook"], c["rule"]) for c in after_iter["PlanUnknown"]["training_thread_waits_for"]} == {
        ("LoggerHook", 3),
        ("CheckpointHook", 3),
    }
    assert after_iter["CheckpointHook"]["overlaps_with"] == ["LoggerHook"]
    assert after_epoch["CheckpointHook"]["shape"] == "capture"
    (point,) = [each for each in plan["points"] if each["point"] == "after_train_iter"]
    assert [band["priority"] for band in point["bands"]] == [10, 50, 60, 70, 90, 95]


def test_the_plan_as_text_says_who_is_waited_for_and_why() -> None:
    shown = hooks("plan.py").output

    assert "100 LOWEST        PlanReader: blocking; reads checkpoints; may change training state" in shown
    assert "both touch checkpoints: rule 2" in shown
    assert "the priority boundary: PlanUnknown declares no effects: rule 3" in shown
    assert (
        "the training thread may wait before PlanUnknown.after_train_iter, PlanReader.after_train_epoch."
        in shown
    )


def test_options_change_what_is_explained() -> None:
    strict = as_json("plan.py", "--cfg-options", "ordering=strict", "custom_hooks=[]")
    sync = hooks("plan.py", "--cfg-options", "mode=sync").output
    free = hooks("plan.py", "--cfg-options", "custom_hooks=[]").output

    assert strict["ordering"] == "strict"
    assert "runs inline, to its end" in sync
    assert "the training thread waits nowhere" in free


def test_the_plan_lists_the_hooks_of_the_run_itself() -> None:
    plan = as_json("plan.py")
    shown = {step["hook"] for point in plan["points"] for band in point["bands"] for step in band["steps"]}
    registered = {"RuntimeInfoHook", "IterTimerHook", "DistSamplerSeedHook", "ParamSchedulerHook"}

    assert shown == registered | {"LoggerHook", "CheckpointHook", "PlanReader", "PlanUnknown"}


def test_help_loads_no_torch() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from asynchooks._cli._app import app; "
        "code = CliRunner().invoke(app, ['hooks', '--help']).exit_code; sys.exit(code or 'torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
