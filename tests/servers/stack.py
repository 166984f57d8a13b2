"""The whole stack on private servers: settings for gateways and workers of one database."""

from __future__ import annotations

import secrets

from tests.servers.hopgate import UNLIMITED
from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import PrivateRabbit
from tests.servers.redis import PrivateRedis


def stack_settings(
    postgres: PrivatePostgres, redis_server: PrivateRedis, rabbitmq: PrivateRabbit
) -> dict[str, str]:
    """Return settings for a fresh database, an empty Redis and a fresh virtual host."""
    redis_server.flush()
    return {
        "HOPGATE_DATABASE_URL": postgres.create_database(),
        "HOPGATE_REDIS_URL": redis_server.url,
        "HOPGATE_AMQP_URL": rabbitmq.add_vhost(f"hopgate-{secrets.token_hex(4)}"),
        "HOPGATE_BASE_URL": "http://hop.example",
        # No load balancer here has to notice a drain, and many gateways end.
        "HOPGATE_DRAIN_DELAY_S": "0",
        **UNLIMITED,
    }
