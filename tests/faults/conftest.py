"""Servers that this suite may kill: nobody else uses them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.stage import Servers


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with Servers() as running:
        yield running
