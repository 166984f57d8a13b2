"""What the OpenAPI document promises holds for requests that schemathesis makes from it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# `make test-long` installs it.
SCHEMATHESIS = Path(os.environ.get("SCHEMATHESIS", Path(sys.prefix) / "bin" / "st"))
# Operations that `schemathesis.toml` leaves out.
LEFT_OUT = 2
SECONDS = int(os.environ.get("SCHEMATHESIS_SECONDS", "600"))


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 300)
def test_requests_from_the_document_find_no_fault(embedded, admin_key):
    """With all checks, one request at a time and in sequences, as `schemathesis.toml` says."""
    done = subprocess.run(
        [
            *(SCHEMATHESIS, "run", f"{embedded.url}/api/v1/openapi.json"),
            *("--header", f"Authorization: Bearer {admin_key}"),
            *("--checks", "all", "--max-time", str(SECONDS), "--continue-on-failure", "--no-color"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS + 240,
    )

    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Stateful (in" in done.stdout, "the time was over before sequences of requests began"
    told = re.search(r"(\d+) selected / (\d+) total", done.stdout)
    assert told is not None
    assert int(told[2]) - int(told[1]) == LEFT_OUT, "schemathesis.toml selects others than it means to"
