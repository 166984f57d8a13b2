"""
The only reader of the environment. Every setting is HOPGATE_<NAME>; see docs/operations.md.

    sources.py   the environment, and the files in the data folder
    tracing.py   the variables of OpenTelemetry
    reports.py   the variables of Sentry
    values.py    service URLs, the base URL, addresses and networks
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from app.domain import schemes
from app.domain.errors import SettingsError
from app.settings import sources, values
from app.settings.values import IpNetwork, host_and_port

__all__ = ["DRAINING", "IpNetwork", "Settings", "host_and_port", "load", "warnings"]

# The marker file in `metrics_dir`: this gateway is draining.
DRAINING = "draining"
# The schemes that the drivers accept, in lower case only.
_SCHEMES = {
    "database_url": ("postgresql", "postgres"),
    "database_replica_urls": ("postgresql", "postgres"),
    "redis_url": (
        *("redis", "rediss", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel", "unix"),
    ),
    "amqp_url": ("amqp", "amqps"),
}
_DATA_DIR = Path("data")


class Settings(BaseSettings):
    """
    The configuration of a process, read from the environment and from two files in the data folder.

    Without any of the three service URLs, Hopgate runs embedded: SQLite in `data_dir`, cache and
    events in the process. With all three it runs on PostgreSQL, Redis and RabbitMQ. URLs are secret:
    they contain passwords.
    """

    model_config = SettingsConfigDict(
        env_prefix="HOPGATE_", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    bind: str = "127.0.0.1:8000"
    base_url: str = ""
    data_dir: Annotated[Path, Field(validate_default=True)] = _DATA_DIR
    database_url: SecretStr | None = None
    database_replica_urls: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    redis_url: SecretStr | None = None
    amqp_url: SecretStr | None = None
    url: str | None = None
    key: SecretStr | None = None
    key_file: Path | None = None
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    front: Literal["on", "off"] = "on"
    front_threads: Annotated[int, Field(ge=1, le=64)] = 1
    trusted_proxies: Annotated[tuple[IpNetwork, ...], NoDecode] = ()
    proxy_protocol: Literal["on", "off"] = "off"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    target_schemes: str = "http https"
    preview: Literal["on", "off"] = "on"
    console: Literal["on", "off"] = "on"
    language: str = "en"
    pages: Path | None = None
    dialects: str = ""
    cors_origins: str = ""
    limit_redirect: str = "100/s burst 200"
    limit_api: str = "600/min burst 100"
    limit_create: str = "120/min burst 60"
    limit_bulk: str = "60000/min burst 40000"
    limit_not_found: str = "60/min burst 60"
    undo_days: Annotated[int, Field(ge=0, le=3650)] = 30
    history_days: Annotated[int, Field(ge=0, le=3650)] = 90
    slug_cool_down: str = "never"
    webhooks_http: Literal["on", "off"] = "off"
    webhook_networks: Annotated[tuple[IpNetwork, ...], NoDecode] = ()
    webhook_timeout_s: Annotated[float, Field(ge=1, le=30)] = 10.0
    webhook_retries: str = "5s 30s 5m 30m 2h 5h 8h 8h"
    events_days: Annotated[int, Field(ge=2, le=365)] = 7
    event_streams: Annotated[int, Field(ge=0, le=10_000)] = 100
    analytics: Literal["on", "off"] = "on"
    analytics_days: Annotated[int, Field(ge=1, le=3650)] = 365
    respect_dnt: Literal["on", "off"] = "off"
    geo_file: Path | None = None
    qr_logo: Path | None = None
    metrics_bind: str | None = None
    metrics_dir: Path | None = None
    # Set by `hopgate serve` for its workers: the public sockets, and the path of the private one.
    front_listeners: tuple[int, ...] = ()
    front_socket: Path | None = None
    drain_delay_s: Annotated[float, Field(ge=0, le=10)] = 1.0
    trace_slow_ms: Annotated[int, Field(ge=1, le=600_000)] = 500
    access_log: str = "off"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources; the first one that has a setting decides."""
        del dotenv_settings, file_secret_settings
        files = [InitSettingsSource(settings_cls, dict(file.values)) for file in _files(os.environ)]
        return init_settings, env_settings, *files

    @field_validator("database_url", "redis_url", "amqp_url")
    @classmethod
    def _valid_url(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is not None:
            values.check_service_url(value.get_secret_value(), _SCHEMES[str(info.field_name)])
        return value

    @field_validator("database_replica_urls", mode="before")
    @classmethod
    def _urls_by_comma(cls, value: object) -> object:
        # A URL may contain commas, between hosts.
        return re.split(r",\s*(?=[\w.+-]+://)", value.strip()) if isinstance(value, str) else value

    @field_validator("database_replica_urls")
    @classmethod
    def _valid_urls(cls, value: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        for url in value:
            values.check_service_url(url.get_secret_value(), _SCHEMES[str(info.field_name)])
        return value

    @field_validator("data_dir", "tls_cert", "tls_key", "pages", "geo_file", "qr_logo")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else sources.absolute(value)

    @field_validator("bind", "metrics_bind")
    @classmethod
    def _host_and_port(cls, value: str | None) -> str | None:
        if value is not None:
            values.check_bind(value)
        return value

    @field_validator("base_url")
    @classmethod
    def _canonical(cls, value: str) -> str:
        return values.base_url(value) if value else value

    @field_validator("url")
    @classmethod
    def _gateway(cls, value: str | None) -> str | None:
        if value is not None and "@" in value:
            raise ValueError("must not contain a user name or password: HOPGATE_KEY is the key")
        return None if value is None else values.base_url(value)

    @field_validator("webhook_retries")
    @classmethod
    def _pauses(cls, value: str) -> str:
        values.pauses(value)
        return value

    @field_validator("trusted_proxies", "webhook_networks", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        if isinstance(value, str):
            return values.networks(value.split(","))
        if isinstance(value, list):
            return values.networks(map(str, value))
        return value

    @field_validator("target_schemes", mode="before")
    @classmethod
    def _schemes(cls, value: object) -> object:
        return " ".join(schemes.parsed(_names(value)))

    @field_validator("dialects", mode="before")
    @classmethod
    def _dialects(cls, value: object) -> object:
        return " ".join(values.dialects(_names(value)))

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _origins(cls, value: object) -> object:
        return " ".join(values.origins(_names(value)))

    @field_validator("slug_cool_down")
    @classmethod
    def _cool_down(cls, value: str) -> str:
        values.cool_down(value)
        return value

    @field_validator("access_log", mode="before")
    @classmethod
    def _share(cls, value: object) -> object:
        # TOML has numbers and truth values of its own.
        text = {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
        values.share(text)
        return text

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
        if self.key is not None and self.key_file is not None:
            msg = "set HOPGATE_KEY or HOPGATE_KEY_FILE, not both"
            raise ValueError(msg)
        if (self.tls_cert is None) != (self.tls_key is None):
            msg = "set HOPGATE_TLS_CERT and HOPGATE_TLS_KEY, both or neither"
            raise ValueError(msg)
        if self.tls_cert is not None and self.front == "off":
            msg = "HOPGATE_TLS_CERT needs HOPGATE_FRONT=on"
            raise ValueError(msg)
        if self.proxy_protocol == "on":
            if self.front == "off":
                msg = "HOPGATE_PROXY_PROTOCOL needs HOPGATE_FRONT=on"
                raise ValueError(msg)
            if not self.trusted_proxies:
                msg = "HOPGATE_PROXY_PROTOCOL needs HOPGATE_TRUSTED_PROXIES: no others may connect then"
                raise ValueError(msg)
        if self.embedded and self.workers > 1:
            msg = "HOPGATE_WORKERS above 1 needs PostgreSQL, Redis and RabbitMQ (set their three URLs)"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _retries_within_the_log(self) -> Self:
        if sum(self.webhook_pauses, timedelta()) * 1.2 > timedelta(days=self.events_days):
            msg = "HOPGATE_WEBHOOK_RETRIES reaches beyond HOPGATE_EVENTS_DAYS, when events are forgotten"
            raise ValueError(msg)
        return self

    @property
    def embedded(self) -> bool:
        """Does Hopgate run without PostgreSQL, Redis and RabbitMQ?"""
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
        """The prefix of short URLs, without a slash at the end."""
        return self.base_url or self.local_url

    @property
    def local_url(self) -> str:
        """The URL of the gateway on its own machine, without a slash at the end."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.bind.rpartition(":")[0])  # noqa: S104
        return f"{'http' if self.tls_cert is None else 'https'}://{host}:{self.port}"

    @property
    def base_path(self) -> str:
        """The path of `base_url`: empty, or /like/this."""
        return urlsplit(self.base_url).path

    @property
    def allowed_schemes(self) -> frozenset[str]:
        """What targets may have, in lower case."""
        return frozenset(self.target_schemes.split())

    @property
    def spoken_dialects(self) -> frozenset[str]:
        """The APIs of other shorteners that are served as well, by name."""
        return frozenset(self.dialects.split())

    @property
    def allowed_origins(self) -> frozenset[str]:
        """The origins whose pages may call the API; `*` alone: all."""
        return frozenset(self.cors_origins.split())

    @property
    def access_log_share(self) -> float:
        """The share of requests that have a line in the access log, 0 to 1; at 0 there is none."""
        return values.share(self.access_log)

    @property
    def webhook_pauses(self) -> tuple[timedelta, ...]:
        """The pauses after failed attempts to deliver an event."""
        return values.pauses(self.webhook_retries)

    @property
    def store_name(self) -> str:
        """The store, for people: no password."""
        return values.without_secrets(self.store_url) if self.database_url else str(self.sqlite_path)

    @property
    def sqlite_path(self) -> Path:
        """The database file of the embedded store."""
        return self.data_dir / "hopgate.db"

    @property
    def cool_down(self) -> timedelta | None:
        """How long slugs of removed links stay taken; None: for ever."""
        return values.cool_down(self.slug_cool_down)

    @property
    def draining_path(self) -> Path | None:
        """The file that exists while this gateway drains; None if it has no `metrics_dir`."""
        return self.metrics_dir / DRAINING if self.metrics_dir else None

    @property
    def store_url(self) -> str:
        """The URL that migrations run against; secret."""
        return self.database_url.get_secret_value() if self.database_url else f"sqlite:///{self.sqlite_path}"


def load() -> Settings:
    """
    Read the environment and the files in the data folder.

    Raises:
        SettingsError: with every problem on one line. Secret values are not quoted.
    """
    files = _files(os.environ)
    problems = list(sources.unknown_names(os.environ, files, Settings.model_fields))
    try:
        settings = Settings()
    except ValidationError as error:
        problems = [*_described(error, files), *problems]
    if problems:
        raise SettingsError("; ".join(problems))
    return settings


def warnings(settings: Settings) -> Sequence[str]:
    """Return a sentence for each setting that is valid and dangerous."""
    secret = [name for name, field in Settings.model_fields.items() if "Secret" in str(field.annotation)]
    found = list(sources.loose_modes(_files(os.environ), secret))
    if settings.tls_key is not None and sources.is_open_to_others(settings.tls_key):
        found.append(f"HOPGATE_TLS_KEY: other users can read {settings.tls_key}: chmod 600 it")
    if settings.tls_cert is not None and settings.base_url.startswith("http:"):
        found.append(
            "HOPGATE_BASE_URL begins with http:, and with HOPGATE_TLS_CERT this gateway serves HTTPS alone"
        )
    if values.is_everything(settings.trusted_proxies):
        found.append(
            "HOPGATE_TRUSTED_PROXIES trusts most of the internet: a client that sends X-Forwarded-For"
            " escapes every limit; name your proxies alone"
        )
    return found


def _names(value: object) -> Sequence[str]:
    """Return the names in *value*, separated by spaces or commas; TOML has lists."""
    return [str(one) for one in value] if isinstance(value, list) else re.split(r"[\s,]+", str(value))


def _files(environment: Mapping[str, str]) -> Sequence[sources.SettingsFile]:
    folder = sources.data_dir(environment, _DATA_DIR)
    return sources.settings_files(folder, Settings.model_fields)


def _described(error: ValidationError, files: Sequence[sources.SettingsFile]) -> list[str]:
    in_environment = {name.upper() for name, value in os.environ.items() if value}
    problems = []
    for problem in error.errors(include_input=False, include_url=False):
        message = problem["msg"].removeprefix("Value error, ")
        field = str(problem["loc"][0]) if problem["loc"] else ""
        name = f"{sources.PREFIX}{field.upper()}"
        file = next((file.path for file in files if field in file.values), None)
        place = f" (in {file})" if file and name not in in_environment else ""
        problems.append(f"{name}: {message}{place}" if field else message)
    return problems
