"""What a backlog of the outbox costs the PostgreSQL store."""

from __future__ import annotations

import psycopg
import pytest

from app.adapters.postgres import sql
from tests.servers.postgres import PrivatePostgres

pytestmark = pytest.mark.services


@pytest.mark.parametrize("is_due", [True, False])
def test_batch_of_a_backlog_is_taken_without_reading_the_rest(
    postgres: PrivatePostgres, *, is_due: bool
) -> None:
    """Thousands of links made at once are thousands of rows that no statistics know of yet."""
    asked = {"limit": 200, "lease_s": 30.0, "longest_s": 600.0}
    with psycopg.connect(postgres.create_database(), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO outbox (slug, version, next_attempt_at)"
            " SELECT 's' || n, 1, now() + make_interval(secs => %s) FROM generate_series(1, 20000) AS n",
            [-1 if is_due else 60],
        )

        plan = connection.execute(f"EXPLAIN (ANALYZE) {sql.TAKE_EVENTS}".encode(), asked).fetchall()

    text = "\n".join(line for (line,) in plan)
    assert "Seq Scan on outbox" not in text
    assert "Rows Removed by Filter" not in text
