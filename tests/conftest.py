"""Fixtures that several folders share."""

import gc
import importlib
import json
import os
import shutil
import struct
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from filelock import FileLock

from asynchooks import testing
from asynchooks.testing import _server

torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """Take what is loaded by now out of every later garbage collection: a fifth of a second each, else."""
    gc.collect()
    gc.freeze()


MadeOnce: TypeAlias = "Callable[[str, Callable[[Path], None]], Path]"


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Have a folder filled by one of the test processes, for all of them: what takes long to make."""
    base = tmp_path_factory.getbasetemp()
    common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name: str, fill: Callable[[Path], None]) -> Path:
        folder, done = common / name, common / f"{name}.done"
        with FileLock(common / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def s3_server() -> Iterator[testing.S3Server]:
    """One embedded S3 server for the whole session."""
    with testing.s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testing.S3Server]:
    """An S3 server that knows conditional puts and lists unfinished uploads; slow."""
    port, folder = _server.free_port(), tmp_path_factory.mktemp("moto")
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    with _server.running("moto", command, port, folder / "log"):
        yield testing.S3Server(f"http://127.0.0.1:{port}", "asynchooks", "a-secret-value", folder)


@pytest.fixture(scope="session")
def azure_server() -> Iterator[testing.AzureServer]:
    """One emulated Azure for the whole session; a machine without it skips its tests."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(testing.azure_server())
        except RuntimeError as error:
            if "npm install" not in str(error):
                raise
            pytest.skip(str(error))
        yield server


@pytest.fixture(scope="session")
def sftp_server() -> Iterator[testing.SftpServer]:
    """One embedded SFTP server for the whole session."""
    with testing.sftp_server() as server:
        yield server


@pytest.fixture(scope="session")
def trackers() -> Iterator[None]:
    """Let W&B and MLflow be used without a word to the outside."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_SILENT", "DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY"):
            patch.setenv(name, "true")
        patch.setenv("WANDB_MODE", "offline")  # what a test forgets to say
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        yield
        if "wandb" in sys.modules:
            sys.modules["wandb"].teardown()


@pytest.fixture
def wandb_records(trackers: None) -> Callable[[Path], list[Any]]:
    """Read the records of the finished offline runs below a folder, in the order of the runs: W&B's own messages."""

    def read(folder: Path) -> list[Any]:
        return [r for path in sorted(folder.glob("**/offline-run-*/*.wandb")) for r in _finished_run(path)]

    return read


def _finished_run(path: Path) -> list[Any]:
    deadline = time.monotonic() + 30
    while True:
        records = list(_wandb_records(path.read_bytes()))
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        assert time.monotonic() < deadline, f"{path} has no end"
        time.sleep(0.01)  # W&B's own process writes the file's end after the run has finished here


def _wandb_records(data: bytes) -> Iterator[Any]:
    messages: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    position, message = 7, b""  # LevelDB's log format, behind seven bytes
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        if len(data) < position + 7 + length:  # not all there yet
            return
        message += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = messages.Record()
            record.ParseFromString(message)
            yield record
            message = b""


@pytest.fixture
def wandb_rows(wandb_records: Callable[[Path], list[Any]]) -> Callable[[Path], list[dict[str, Any]]]:
    """Read the rows of the offline runs below a folder, without W&B's own columns but its step."""

    def read(folder: Path) -> list[dict[str, Any]]:
        rows = []
        for record in wandb_records(folder):
            if record.WhichOneof("record_type") == "history":
                items = {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json)
                    for item in record.history.item
                }
                rows.append({k: v for k, v in items.items() if k not in ("_timestamp", "_runtime")})
        return rows

    return read


@pytest.fixture(scope="session")
def mlflow_store(trackers: None, made_once: MadeOnce) -> Path:
    """Make MLflow's empty SQLite file, which takes seconds, once; to be copied."""

    def fill(folder: Path) -> None:
        from mlflow import MlflowClient

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The ``noload``")  # MLflow's, of SQLAlchemy 2.1
            MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}").search_experiments()

    return made_once("mlflow", fill) / "mlflow.db"


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Have packages of tracking services that are not installed be found; return the calls that they record."""
    folder = Path(__file__).with_name("stand_ins")
    monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module("recording_stand_in").CALLS
    for path in folder.iterdir():
        for name in [each for each in sys.modules if each.partition(".")[0] == path.stem]:
            del sys.modules[name]
