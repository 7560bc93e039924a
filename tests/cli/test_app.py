from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from asynchooks._cli._app import app
from asynchooks._version import __version__


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "NO_COLOR": "1"})


def test_the_version_is_printed_by_the_module_too() -> None:
    command = [sys.executable, "-m", "asynchooks", "--version"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert printed == f"asynchooks {__version__}\n"


def test_the_version_needs_no_torch() -> None:
    code = "import asynchooks._cli, sys; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--steps", "3"], "at least 8 steps"),
        (["--bandwidth", "0"], "above 0"),
        (["--bandwidth", "nan"], "above 0"),
        (["--bandwidth", "10", "--store", "memory://x"], "cannot limit --store"),
        (["--model", "huge"], "'huge' is none of small, tiny"),
        (["--device", "abacus"], "torch cannot use 'abacus'"),
        (["--device", "cuda:99"], "torch cannot use 'cuda:99'"),
        (["--threads", "0"], "--threads"),
        (["--seed", "-1"], "--seed"),
        (["--json", "/nowhere/at/all.json"], "cannot be written"),
        (["--no-such-option"], "No such option"),
    ],
)
def test_a_wrong_option_is_named_before_anything_runs(options: list[str], words: str) -> None:
    result = invoke("demo", *options)

    assert result.exit_code == 2
    assert words in result.output


def test_a_folder_is_no_file_for_the_numbers(tmp_path: Path) -> None:
    assert "cannot be written" in invoke("demo", "--json", str(tmp_path)).output
