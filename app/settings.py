"""The only reader of the environment. Every setting is HOPGATE_<NAME>; see docs/operations.md."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

import can_ada
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.domain.errors import HopgateError

# The file in `metrics_dir` that says: this gateway was told to end.
DRAINING = "draining"
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
# What the drivers understand; they take no capitals either.
_SCHEMES = {
    "database_url": ("postgresql", "postgres"),
    "database_replica_urls": ("postgresql", "postgres"),
    "redis_url": ("redis", "rediss", "redis+cluster", "rediss+cluster", "unix"),
    "amqp_url": ("amqp", "amqps"),
}
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Settings(BaseSettings):
    """
    What an operator decides.

    Without any of the three URLs, Hopgate runs embedded: SQLite in `data_dir`, cache and
    events in the process. With all three it runs on PostgreSQL, Redis and RabbitMQ. URLs
    are secret: they carry passwords.
    """

    model_config = SettingsConfigDict(
        env_prefix="HOPGATE_", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    bind: str = "127.0.0.1:8000"
    base_url: str = ""
    data_dir: Path = Path("data")
    database_url: SecretStr | None = None
    database_replica_urls: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    redis_url: SecretStr | None = None
    amqp_url: SecretStr | None = None
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    trusted_proxies: Annotated[tuple[IpNetwork, ...], NoDecode] = ()
    limit_redirect: str = "100/s burst 200"
    limit_api: str = "600/min burst 100"
    limit_create: str = "120/min burst 60"
    limit_not_found: str = "60/min burst 60"
    metrics_bind: str | None = None
    metrics_dir: Path | None = None
    drain_delay_s: Annotated[float, Field(ge=0, le=10)] = 1.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("database_url", "redis_url", "amqp_url")
    @classmethod
    def _readable_url(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is not None:
            _check_url(value.get_secret_value(), _SCHEMES[str(info.field_name)])
        return value

    @field_validator("database_replica_urls", mode="before")
    @classmethod
    def _urls_by_comma(cls, value: object) -> object:
        # A URL may have commas of its own, between hosts.
        return re.split(r",\s*(?=[\w.+-]+://)", value.strip()) if isinstance(value, str) else value

    @field_validator("database_replica_urls")
    @classmethod
    def _readable_urls(cls, value: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        for url in value:
            _check_url(url.get_secret_value(), _SCHEMES[str(info.field_name)])
        return value

    @field_validator("bind", "metrics_bind")
    @classmethod
    def _host_and_port(cls, value: str | None) -> str | None:
        if value is None:
            return None
        host, colon, port = value.rpartition(":")
        if not (colon and host and port.isdigit() and 1 <= int(port) <= 65535):
            msg = f"{value!r} is not HOST:PORT"
            raise ValueError(msg)
        if ":" in host and not (host.startswith("[") and host.endswith("]")):
            msg = f"{value!r}: an IPv6 address needs brackets, as in [::1]:8000"
            raise ValueError(msg)
        return value

    @field_validator("base_url")
    @classmethod
    def _no_trailing_slash(cls, value: str) -> str:
        # The parser takes no text that is none in UTF-8.
        readable = value.isprintable() and can_ada.can_parse(value)
        if value and not (value.startswith(("http://", "https://")) and readable):
            msg = f"{value!r} must be a URL with http:// or https:// and a host"
            raise ValueError(msg)
        return value.rstrip("/")

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        return (
            [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value
        )

    @model_validator(mode="after")
    def _all_services_or_none(self) -> Self:
        urls = {
            "HOPGATE_DATABASE_URL": self.database_url,
            "HOPGATE_REDIS_URL": self.redis_url,
            "HOPGATE_AMQP_URL": self.amqp_url,
        }
        missing = [name for name, url in urls.items() if url is None]
        if 0 < len(missing) < len(urls):
            msg = f"set all three service URLs or none: {' and '.join(missing)} missing"
            raise ValueError(msg)
        if self.embedded and self.database_replica_urls:
            msg = "HOPGATE_DATABASE_REPLICA_URLS needs HOPGATE_DATABASE_URL, their primary"
            raise ValueError(msg)
        if self.embedded and self.workers > 1:
            msg = "HOPGATE_WORKERS above 1 needs PostgreSQL, Redis and RabbitMQ (set their three URLs)"
            raise ValueError(msg)
        return self

    @property
    def embedded(self) -> bool:
        """Does Hopgate run alone, without services?"""
        return self.database_url is None

    @property
    def host(self) -> str:
        """The address to listen on, brackets removed."""
        return host_and_port(self.bind)[0]

    @property
    def port(self) -> int:
        """The port to listen on."""
        return host_and_port(self.bind)[1]

    @property
    def public_url(self) -> str:
        """What short URLs start with, without a slash at the end."""
        if self.base_url:
            return self.base_url
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.bind.rpartition(":")[0])  # noqa: S104
        return f"http://{host}:{self.port}"

    @property
    def sqlite_path(self) -> Path:
        """Where the embedded store keeps its data."""
        return self.data_dir / "hopgate.db"

    @property
    def draining_path(self) -> Path | None:
        """The file that is there once this gateway has been told to end; None if nobody would make it."""
        return self.metrics_dir / DRAINING if self.metrics_dir else None

    @property
    def store_url(self) -> str:
        """The URL that migrations run against; secret."""
        return self.database_url.get_secret_value() if self.database_url else f"sqlite:///{self.sqlite_path}"


def host_and_port(bind: str) -> tuple[str, int]:
    """Return the two halves of a valid "HOST:PORT", brackets removed."""
    host, _, port = bind.rpartition(":")
    return host.strip("[]"), int(port)


def _check_url(url: str, schemes: tuple[str, ...]) -> None:
    """Refuse what a driver would: it quotes what it cannot read, and that may be half a password."""
    if not url.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        msg = f"must start with one of {', '.join(f'{scheme}://' for scheme in schemes)}"
        raise ValueError(msg)
    if not _is_readable(url) or _STRAY_PERCENT.search(url):
        msg = "is not a URL; is every special character of the password percent-encoded?"
        raise ValueError(msg)


def _is_readable(url: str) -> bool:
    try:
        url.encode()  # what the environment had in no UTF-8 cannot be sent either
        parts = urlsplit(url)
        # PostgreSQL's may name several hosts.
        hosts = [urlsplit(f"//{host}") for host in parts.netloc.rpartition("@")[2].split(",")]
        has_place = all(host.hostname for host in hosts) or bool(parts.path)
        return has_place and all((host.port or 1) > 0 for host in hosts)
    except ValueError:
        return False


class SettingsError(HopgateError):
    """The environment does not describe a service; one line says why."""


def load() -> Settings:
    """
    Read the environment.

    Raises:
        SettingsError: with every problem on one line. Values are not repeated: they may be secret.
    """
    try:
        return Settings()
    except ValidationError as error:
        problems = []
        for problem in error.errors(include_input=False, include_url=False):
            message = problem["msg"].removeprefix("Value error, ")
            name = f"HOPGATE_{str(problem['loc'][0]).upper()}: " if problem["loc"] else ""
            problems.append(name + message)
        raise SettingsError("; ".join(problems)) from None
