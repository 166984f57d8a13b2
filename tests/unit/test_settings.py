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


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("DATABASE_URL", "postgres://u:50%25off@h/d"),
        ("DATABASE_URL", "postgresql:///d?host=/run/postgresql"),
        ("REDIS_URL", "redis://:p@h:6379/0"),
        ("REDIS_URL", "redis+cluster://h:7000"),
        ("REDIS_URL", "unix:///run/redis.sock"),
        ("AMQP_URL", "amqps://u:p@h/%2Fx"),
    ],
)
def test_urls_that_the_drivers_understand(environment, name, url):
    environment.setenv(f"HOPGATE_{name}", url)

    assert getattr(settings.load(), name.lower()).get_secret_value() == url


_OF_ANOTHER_KIND, _UNREADABLE = "must start with one of ", "is not a URL"


@pytest.mark.parametrize(
    ("name", "url", "why"),
    [
        ("DATABASE_URL", "postgresql+psycopg://u:geheim@h/d", _OF_ANOTHER_KIND),
        ("DATABASE_URL", "PostgreSQL://u:geheim@h/d", _OF_ANOTHER_KIND),
        ("DATABASE_URL", "sqlite:///geheim", _OF_ANOTHER_KIND),
        ("DATABASE_URL", "postgresql:u:geheim@h/d", _OF_ANOTHER_KIND),
        ("DATABASE_REPLICA_URLS", "postgresql://a/d, postgresql+psycopg://u:geheim@h/d", _OF_ANOTHER_KIND),
        ("REDIS_URL", "geheim:6379", _OF_ANOTHER_KIND),
        ("REDIS_URL", "http://:geheim@h", _OF_ANOTHER_KIND),
        ("AMQP_URL", "rabbitmq://u:geheim@h/", _OF_ANOTHER_KIND),
        ("DATABASE_URL", "postgresql://u:50%geheim@h/d", _UNREADABLE),
        ("DATABASE_URL", "postgresql://u:geheim%@h/d", _UNREADABLE),
        ("DATABASE_URL", "postgresql://u:geheim\udce9@h/d", _UNREADABLE),
        ("DATABASE_REPLICA_URLS", "postgresql://a/d,postgresql://u:geheim%2@h/d", _UNREADABLE),
        ("REDIS_URL", "redis://:geheim%zz@h", _UNREADABLE),
        ("AMQP_URL", "amqp://u:geheim@h/%", _UNREADABLE),
    ],
)
def test_a_url_that_no_driver_reads_is_refused_and_not_quoted(environment, name, url, why):
    environment.setenv(f"HOPGATE_{name}", url)

    with pytest.raises(settings.SettingsError) as caught:
        settings.load()

    assert str(caught.value).startswith(f"HOPGATE_{name}: {why}")
    assert "geheim" not in str(caught.value)
