"""Parts for tests, shipped: gates, recording instruments, throttled links, faulty stores, embedded servers.

What needs torch is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from asynchooks.testing._azure import AzureServer, azure_server
from asynchooks.testing._faulty_link import FaultyLink, LinkFault, LinkFaultKind, LinkRequest
from asynchooks.testing._gate import Gate
from asynchooks.testing._recording import RecordingInstrument
from asynchooks.testing._s3 import S3Server, s3_server
from asynchooks.testing._sftp import SftpServer, sftp_server
from asynchooks.testing._throttle import ThrottledLink, TokenBucket

if TYPE_CHECKING:
    from asynchooks.testing._checkpoint_suite import CheckpointSuite
    from asynchooks.testing._copies import late_copies
    from asynchooks.testing._ranks import RankOutcome, Ranks, run_ranks, start_rank_server
    from asynchooks.testing._storage import Call, Fault, FaultyStore, SlowStore
    from asynchooks.testing._store_suite import StoreSuite

__all__ = [
    "AzureServer",
    "Call",
    "CheckpointSuite",
    "Fault",
    "FaultyLink",
    "FaultyStore",
    "Gate",
    "LinkFault",
    "LinkFaultKind",
    "LinkRequest",
    "RankOutcome",
    "Ranks",
    "RecordingInstrument",
    "S3Server",
    "SftpServer",
    "SlowStore",
    "StoreSuite",
    "ThrottledLink",
    "TokenBucket",
    "azure_server",
    "late_copies",
    "run_ranks",
    "s3_server",
    "sftp_server",
    "start_rank_server",
]

_LAZY = {
    "Call": "asynchooks.testing._storage",
    "CheckpointSuite": "asynchooks.testing._checkpoint_suite",
    "Fault": "asynchooks.testing._storage",
    "FaultyStore": "asynchooks.testing._storage",
    "RankOutcome": "asynchooks.testing._ranks",
    "Ranks": "asynchooks.testing._ranks",
    "SlowStore": "asynchooks.testing._storage",
    "StoreSuite": "asynchooks.testing._store_suite",
    "late_copies": "asynchooks.testing._copies",
    "run_ranks": "asynchooks.testing._ranks",
    "start_rank_server": "asynchooks.testing._ranks",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'asynchooks.testing' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
