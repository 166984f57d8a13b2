"""What an operator may write, beyond what `tests/integration/test_cli.py` says of mistakes."""

from __future__ import annotations

import pytest

from app import settings

SERVICES = {
    "HOPGATE_DATABASE_URL": "postgresql://u:p@a:5432,b:5433/d",
    "HOPGATE_REDIS_URL": "rediss+cluster://u:p@cache:7000",
    "HOPGATE_AMQP_URL": "amqp://u:p@bus/%2F",
}


@pytest.fixture
def environment(monkeypatch):
    for name, value in SERVICES.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_a_url_may_name_several_hosts_with_ports(environment):
    loaded = settings.load()

    assert loaded.database_url.get_secret_value() == SERVICES["HOPGATE_DATABASE_URL"]


def test_replicas_are_separated_by_commas_that_do_not_separate_hosts(environment):
    environment.setenv("HOPGATE_DATABASE_REPLICA_URLS", "postgresql://a:1,b:2/d, postgres://c/d?host=x,y")

    urls = [url.get_secret_value() for url in settings.load().database_replica_urls]

    assert urls == ["postgresql://a:1,b:2/d", "postgres://c/d?host=x,y"]


def test_without_replicas(environment):
    environment.setenv("HOPGATE_DATABASE_REPLICA_URLS", "")

    assert settings.load().database_replica_urls == ()
