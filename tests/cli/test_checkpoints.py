"""What ``asynchooks checkpoints`` says and does, on real folders with real damage."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from asynchooks._cli._app import app
from asynchooks.checkpoint import Checkpointer, CheckpointInfo, capture, list_checkpoints, open_store
from tests.checkpoint.dcp_folder import Sharded


def invoke(*arguments: str | Path) -> Result:
    command = ["checkpoints", *map(str, arguments)]
    return CliRunner().invoke(app, command, env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})


def saved(folder: Path, step: int, run_id: str = "run-a", **options: Any) -> CheckpointInfo:
    weights = torch.full((100,), float(step))
    state = {"state_dict": {"w": weights, "tied": weights}, "meta": {"iter": step}}
    saves = Checkpointer(folder, run_id=run_id)
    info = saves.save_sync(capture(state), name=f"iter_{step}.pth", step=step, **options)
    saves.release_sync()
    return info


def damage(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)


def names(folder: Path) -> list[str]:
    return [info.name for info in list_checkpoints(folder)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of three checkpoints."""
    folder = tmp_path / "run"
    for step in (10, 20, 30):
        saved(folder, step, epoch=step // 10, metrics={"acc": step / 100}, pointer="last")
    return folder


def test_list_shows_what_is_committed(run: Path) -> None:
    result = invoke("list", run)

    assert result.exit_code == 0
    (row,) = [line for line in result.stdout.splitlines() if line.startswith("iter_30.pth")]
    assert row.split()[:4] == ["iter_30.pth", "30", "3", "acc=0.3"]
    assert row.rstrip().endswith("run-a   last    last")
    assert "3 committed checkpoints" in result.stdout


def test_list_says_why_a_file_is_not_committed(run: Path) -> None:
    (run / "iter_10.pth").write_bytes(b"short")
    (run / f".asynchooks-{'0' * 32}.tmp").write_bytes(b"part")
    (run / "notes.txt").write_text("mine")

    result = invoke("list", run)
    assert result.exit_code == 1
    assert "iter_10.pth" in result.stdout
    assert "has 5 bytes where" in result.stdout
    assert "a temporary file that no process is known to write" in result.stdout
    assert "nothing vouches for it" in result.stdout


def test_foreign_files_and_leftovers_alone_are_no_problem(run: Path) -> None:
    (run / f".asynchooks-{'0' * 32}.tmp").write_bytes(b"part")
    (run / "notes.txt").write_text("mine")

    assert invoke("list", run).exit_code == 0


def test_the_keys_of_list_as_json_are_these(run: Path) -> None:
    (run / "notes.txt").write_text("mine")
    saved(run, 40, metrics={"acc": float("nan")})

    result = invoke("list", run, "--json", "--verify")
    document = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert set(document) == {"url", "checkpoints", "pointers", "others", "bytes"}
    assert set(document["checkpoints"][0]) == {
        *("name", "url", "step", "epoch", "metrics", "bytes", "created", "run_id", "save_id", "group"),
        *("saved_as", "layout", "files", "world_size", "pointers", "verified"),
    }
    assert set(document["others"][0]) == {"name", "bytes", "modified", "kind", "reason"}
    assert [one["verified"] for one in document["checkpoints"]] == [True] * 4
    assert document["checkpoints"][3]["metrics"] == {"acc": "nan"}
    assert document["pointers"] == {"last": "iter_30.pth"}
    assert document["bytes"] == sum(file.stat().st_size for file in run.iterdir())


def test_a_folder_without_checkpoints_is_a_problem(tmp_path: Path) -> None:
    for command in ("list", "verify", "restore-check"):
        assert invoke(command, tmp_path).exit_code == 1
        assert json.loads(invoke(command, tmp_path, "--json").stdout)["url"] == str(tmp_path)


def test_a_name_cannot_steer_the_terminal(run: Path) -> None:
    (run / "evil\x1b[2J[red]\n.txt").write_text("")

    result = invoke("list", run)
    assert "\x1b" not in result.stdout
    assert "evil\\x1b[2J[red]\\n.txt" in result.stdout


def test_verify_reads_all_and_names_the_chunk_that_differs(run: Path) -> None:
    damage(run, "iter_20.pth")

    result = invoke("verify", run)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [
        ["ok", "iter_10.pth"],
        ["DAMAGED", "iter_20.pth"],
        ["ok", "iter_30.pth"],
    ]
    assert re.search(r"chunk \d, bytes \d+ to \d+, differs", lines[1])
    assert lines[3] == "2 checkpoints whole, 1 damaged: iter_20.pth."
    assert "verifying iter_10.pth (" in result.stderr


def test_verify_takes_one_checkpoint_or_the_newest(run: Path) -> None:
    damage(run, "iter_20.pth")

    assert invoke("verify", run / "iter_20.pth").exit_code == 1
    assert invoke("verify", run / "iter_10.pth").exit_code == 0
    assert invoke("verify", run, "--latest").exit_code == 0
    assert invoke("verify", run / "iter_10.pth", "--latest").exit_code == 2
    assert invoke("verify", run, "--latest", "--all").exit_code == 2
    assert "none.pth: nothing to verify" in invoke("verify", run / "none.pth").stdout


def test_verify_finds_what_is_not_even_committed_any_more(run: Path) -> None:
    (run / "iter_30.pth").write_bytes(b"short")

    result = invoke("verify", run, "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert [one["status"] for one in document["checkpoints"]] == ["whole", "whole"]
    assert "iter_30.pth" in [one["name"] for one in document["not_committed"]]
    assert invoke("verify", run / "iter_30.pth").exit_code == 1


def test_restore_check_says_what_a_run_would_resume_from_and_passes_over(run: Path) -> None:
    damage(run, "iter_30.pth")

    result = invoke("restore-check", run)
    assert result.exit_code == 0
    assert "passed over: iter_30.pth (step 30):" in result.stdout
    assert 'resume="auto" takes iter_20.pth (step 20, epoch 2): 2 tensors, 400 bytes.' in result.stdout
    assert "It passes over 1 newer one." in result.stdout


def test_restore_check_lists_every_tensor_and_counts_shared_memory_once(run: Path) -> None:
    document = json.loads(invoke("restore-check", run, "--keys", "--json").stdout)

    assert document["resumable"]
    assert document["tensors"] == [
        {"path": ["state_dict", "w"], "dtype": "float32", "shape": [100], "bytes": 400},
        {"path": ["state_dict", "tied"], "dtype": "float32", "shape": [100], "bytes": 0},
    ]
    assert document["content"][0] == {
        "key": "state_dict",
        "type": "dict",
        "tensors": 2,
        "bytes": 400,
        "dtypes": {"float32": 2},
    }
    assert "state_dict.tied" in invoke("restore-check", run, "--keys").stdout


def test_restore_check_refuses_what_would_run_code(tmp_path: Path) -> None:
    Checkpointer(tmp_path).save_sync(capture({"meta": Path("/")}), name="iter_1.pth", step=1)

    result = invoke("restore-check", tmp_path)
    assert result.exit_code == 1
    assert "A run could not resume" in result.stdout
    assert "loading it would run code" in result.stdout


def test_restore_check_knows_a_runner_needs_the_optimizer(tmp_path: Path) -> None:
    state: dict[str, Any] = {"state_dict": {}, "message_hub": {}, "meta": {}}
    Checkpointer(tmp_path).save_sync(capture(state), name="iter_1.pth", step=1)

    result = invoke("restore-check", tmp_path)
    assert result.exit_code == 1
    assert "without the optimizer's state" in result.stdout


def test_restore_check_takes_a_plain_file_that_is_named(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "epoch_1.pth")

    result = invoke("restore-check", tmp_path / "epoch_1.pth")
    assert result.exit_code == 0
    assert "loads, unverified" in result.stdout


def test_prune_shows_why_each_one_stays_or_goes_and_deletes(run: Path) -> None:
    shown = invoke("prune", run, "--keep-best", "acc:less", "--keep-last", "1", "--dry-run")

    assert shown.exit_code == 0
    rows = {line.split()[1]: line for line in shown.stdout.splitlines() if line.startswith(("goes", "stays"))}
    assert "KeepBest(metric='acc', rule='less', n=1)" in rows["iter_10.pth"]
    assert "nothing keeps it" in rows["iter_20.pth"]
    assert "newest, last_checkpoint names it, KeepLast(n=1)" in rows["iter_30.pth"]
    assert names(run) == ["iter_10.pth", "iter_20.pth", "iter_30.pth"]

    done = invoke("prune", run, "--keep-best", "acc:less", "--keep-last", "1", "--yes")
    assert "Deleted 1 checkpoint (" in done.stdout
    assert names(run) == ["iter_10.pth", "iter_30.pth"]
    again = invoke("prune", run, "--keep-best", "acc:less", "--keep-last", "1", "--yes")
    assert "Nothing to delete." in again.stdout


def test_prune_takes_the_start_of_a_runs_id(run: Path) -> None:
    for step in (1, 2):
        saved(run, step, run_id="other")

    result = invoke("prune", run, "--keep-last", "1", "--run", "oth", "--group", "last", "--yes", "--json")
    document = json.loads(result.stdout)
    assert document["deleted"] == ["iter_1.pth"]
    assert [one["goes"] for one in document["checkpoints"]] == [True, False]
    assert names(run) == ["iter_10.pth", "iter_20.pth", "iter_30.pth", "iter_2.pth"]


def test_prune_deletes_nothing_beside_a_damaged_newest(run: Path) -> None:
    damage(run, "iter_30.pth")

    result = invoke("prune", run, "--keep-last", "1", "--yes")
    assert result.exit_code == 1
    assert "iter_30.pth: chunk" in result.stderr
    assert len(names(run)) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "say what to keep"),
        (["--keep-last", "0"], "--keep-last"),
        (["--keep-last", "1", "--run", "run-b", "--dry-run"], "'run-b'; known: run-a"),
        (["--keep-last", "1", "--group", "bets", "--dry-run"], "'bets'; known: last"),
        (["--keep-best", "ac:less:1", "--dry-run"], "Did you mean 'acc'"),
        (["--keep-best", "acc:lower", "--dry-run"], "METRIC:greater:N"),
        (["--keep-best", "acc:less:0", "--dry-run"], "METRIC:greater:N"),
        (["--keep-last", "1"], "no terminal to ask on"),
        (["--keep-last", "1", "--yes", "--dry-run"], "one of --dry-run and --yes"),
    ],
)
def test_prune_names_a_wrong_option_and_deletes_nothing(run: Path, options: list[str], words: str) -> None:
    result = invoke("prune", run, *options)

    assert result.exit_code == 2
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert len(names(run)) == 3


def test_sweep_removes_what_killed_saves_left(run: Path) -> None:
    (run / "iter_20.pth.manifest.json").rename(run / "iter_20.pth.manifest.next.json")
    shutil.copy(run / "iter_30.pth.manifest.json", run / "iter_30.pth.manifest.next.json")
    leftovers = ["iter_20.pth", "iter_20.pth.manifest.next.json", "iter_30.pth.manifest.next.json"]

    assert "No leftovers that old." in invoke("sweep", run, "--yes").stdout
    shown = invoke("sweep", run, "--older-than", "0s", "--dry-run", "--json")
    assert [one["name"] for one in json.loads(shown.stdout)["leftovers"]] == leftovers
    assert (run / "iter_20.pth").exists()
    assert "no terminal" in invoke("sweep", run).stderr
    done = invoke("sweep", run, "--older-than", "0s", "--yes")
    assert "Removed 3 files." in done.stdout
    assert "not committed yet, or no more" in done.stdout
    assert names(run) == ["iter_10.pth", "iter_30.pth"]


@pytest.mark.parametrize("age", ["1", "1w", "-1d", "soon"])
def test_an_age_has_a_number_and_a_unit(run: Path, age: str) -> None:
    result = invoke("sweep", run, f"--older-than={age}", "--dry-run")

    assert result.exit_code == 2
    assert "is no age such as" in result.stderr


README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.mark.parametrize(
    "command", re.findall(r"^\$ asynchooks (checkpoints .*?)(?: +#.*)?$", README, re.MULTILINE)
)
def test_the_commands_of_the_readme_do_what_it_says(run: Path, command: str) -> None:
    arguments = command.replace("$RUN", str(run)).split()[1:]

    assert invoke(*arguments).exit_code == 0


def test_the_readme_names_every_key_of_the_json(run: Path) -> None:
    damage(run, "iter_30.pth")
    (run / "iter_20.pth.manifest.json").rename(run / "iter_20.pth.manifest.next.json")
    commands = (
        ["list"],
        ["verify"],
        ["restore-check", "--keys"],
        ["prune", "--keep-last=1", "--dry-run"],
        ["sweep", "--older-than=0s", "--dry-run"],
    )
    for command, *options in commands:
        document = json.loads(invoke(command, run, *options, "--json").stdout)
        (described,) = re.findall(rf"^\| `{command}` \| (.*) \|$", README, re.MULTILINE)
        rows = [row for value in document.values() if isinstance(value, list) for row in value]
        keys = {*document, *(key for row in rows if isinstance(row, dict) for key in row)}
        if command == "prune":
            keys -= set(json.loads(invoke("list", run, "--json").stdout)["checkpoints"][0])
        assert {key for key in keys if f"`{key}`" not in described} == set()


# ---- sharded ----


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    for step in (1, 2):
        Sharded(step, f"iter_{step}", world_size=3).save(open_store(folder))
    return folder


def test_list_shows_a_sharded_checkpoint_as_one_line(sharded: Path) -> None:
    result = invoke("list", sharded, "--verify")

    assert result.exit_code == 0
    (row,) = [line for line in result.stdout.splitlines() if line.startswith("iter_2")]
    assert "sharded: 4 files, 3 ranks" in row
    assert row.rstrip().endswith("yes")
    (first, _) = json.loads(invoke("list", sharded, "--json").stdout)["checkpoints"]
    assert (first["layout"], first["files"], first["world_size"]) == ("sharded", 4, 3)


def test_verify_takes_a_sharded_checkpoint_or_the_folder_of_many(sharded: Path) -> None:
    assert "2 checkpoints whole" in invoke("verify", sharded).stdout
    assert "1 checkpoint whole" in invoke("verify", sharded / "iter_1").stdout
    (data,) = sharded.glob("iter_1/__1_0*")
    damage(sharded / "iter_1", data.name)

    result = invoke("verify", sharded / "iter_1")
    assert result.exit_code == 1
    assert f"iter_1/{data.name}: chunk 0" in result.stdout
    data.unlink()
    assert f"DAMAGED  iter_1  {data.name} is not there" in invoke("verify", sharded / "iter_1").stdout


def test_prune_and_sweep_take_folders(sharded: Path) -> None:
    Sharded(1, "iter_9").put_data(open_store(sharded))

    assert invoke("prune", sharded, "--keep-last", "1", "--yes").exit_code == 0
    assert not (sharded / "iter_1").exists()
    assert "Removed 2 files." in invoke("sweep", sharded, "--older-than", "0s", "--yes").stdout
    assert sorted(path.name for path in sharded.iterdir()) == ["iter_2", "iter_2.manifest.json"]
