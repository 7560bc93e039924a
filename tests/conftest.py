"""Fixtures that several folders share."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from asynchooks import testing
from asynchooks.testing import _server

torch.set_num_threads(1)


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
