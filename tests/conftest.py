"""Fixtures that several folders share."""

from collections.abc import Iterator

import pytest
import torch

from asynchooks import testing

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[testing.S3Server]:
    """One embedded S3 server for the whole session."""
    with testing.s3_server() as server:
        yield server
