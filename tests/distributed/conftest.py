"""What tests with ranks share."""

import pytest

from asynchooks.testing import start_rank_server


@pytest.fixture(scope="session", autouse=True)
def rank_server() -> None:
    """Start the process that ranks are forked from before any test is timed."""
    start_rank_server()
