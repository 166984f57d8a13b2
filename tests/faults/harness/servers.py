"""The servers that drills break."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import PrivateRabbit
from tests.servers.redis import PrivateRedis

SERVICES = ("postgres", "redis", "rabbitmq")


class Servers:
    """One PostgreSQL (with fsync), one Redis and one RabbitMQ, used by one stage at a time."""

    def __init__(self) -> None:
        self.postgres = PrivatePostgres(fsync=True)
        self.redis = PrivateRedis()
        self.rabbitmq = PrivateRabbit()
        self._running = ExitStack()

    def __enter__(self) -> Self:
        for server in (self.postgres, self.redis, self.rabbitmq):
            self._running.enter_context(server)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()
