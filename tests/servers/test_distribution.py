"""The tests of one file share a worker process, and with it the servers that the file starts."""

from __future__ import annotations

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
def test_tests_are_distributed_by_file(request):
    """xdist reads the group of a test from its id; otherwise each worker starts each file's servers."""
    assert request.node.nodeid.endswith("@test_distribution")
