"""An Azure blob store on this machine: Azurite, Microsoft's emulator, in memory.

Decides how it is started, reached and stopped. It is a package of npm: in the environment's folder ``azurite``, where
``make test`` puts it, or on PATH.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asynchooks.testing._server import START_S, free_port, rclone, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["AzureServer", "azure_server"]

_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # public: Azurite's
_INSTALL = "npm install --prefix {prefix} azurite"


@dataclass(frozen=True, slots=True)
class AzureServer:
    """A running server.

    Attributes:
        endpoint_url: where it listens, on the loopback interface, with the account's name.
        account: the storage account that it has.
        key: the account's key.
    """

    endpoint_url: str
    account: str = _ACCOUNT
    key: str = field(default=_KEY, repr=False)

    @property
    def storage_options(self) -> Mapping[str, Any]:
        """What to hand to `Checkpointer` beside an ``az://`` URL."""
        return {"account_name": self.account, "account_key": self.key, "endpoint": self.endpoint_url}

    def make_container(self, name: str) -> str:
        """Make a container, if there is none of that name (three characters or more), and return its URL."""
        program = str(rclone("making a container"))
        environment = {
            "RCLONE_AZUREBLOB_ACCOUNT": self.account,
            "RCLONE_AZUREBLOB_KEY": self.key,
            "RCLONE_AZUREBLOB_ENDPOINT": self.endpoint_url,
        }
        command = [program, "mkdir", f":azureblob:{name}", "--config", "/dev/null"]
        done = subprocess.run(command, env=environment, check=False, capture_output=True, timeout=START_S)  # noqa: S603
        if done.returncode:
            raise RuntimeError(
                f"could not make the container {name!r}: {done.stderr.decode(errors='replace').strip()}"
            )
        return f"az://{name}"


@contextmanager
def azure_server() -> Iterator[AzureServer]:
    """Start Azurite on a free port of 127.0.0.1 and stop it at the end; its data goes with it.

    Raises:
        RuntimeError: it is not installed, or did not start; the message says what to do.
    """
    program, port = _azurite(), free_port()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="asynchooks-azure-"))
        command = [
            *(program, "--blobHost", "127.0.0.1", "--blobPort", str(port)),
            *("--inMemoryPersistence", "--silent", "--skipApiVersionCheck"),
        ]
        stack.enter_context(running("Azurite", command, port, Path(folder, "log")))
        yield AzureServer(f"http://127.0.0.1:{port}/{_ACCOUNT}")


def _azurite() -> str:
    prefix = Path(sys.prefix, "azurite")
    installed = prefix / "node_modules" / ".bin" / "azurite-blob"
    found = str(installed) if installed.exists() else shutil.which("azurite-blob")
    if found is None:
        raise RuntimeError(f"Azurite is not installed: {_INSTALL.format(prefix=prefix)}")
    return found
