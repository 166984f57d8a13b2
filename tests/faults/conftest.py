"""Private servers, which the tests of this folder kill and restart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.harness.servers import Servers


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with Servers() as running:
        yield running
