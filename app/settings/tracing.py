"""The variables that OpenTelemetry has standardised, as far as Hopgate reads them itself."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass

from app.domain.errors import SettingsError
from app.settings import values

# A request in a hundred: one that is recorded costs several times a redirect from memory.
DEFAULT_RATIO = 0.01
# A span has a few kilobytes.
_MAX_QUEUED, _LONGEST_QUEUE = 2048, 65_536
LOW_BITS = 2**64 - 1
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


@dataclass(frozen=True, slots=True)
class Sampling:
    """
    Which requests are recorded: those of a share of all trace ids, or those that the caller records.

    `ratio`: of requests without a recorded or unrecorded parent. `follows_parent`: the caller decides
    for its own requests.
    """

    ratio: float
    follows_parent: bool

    def takes(self, trace_id: int, parent_is_sampled: bool | None) -> bool:  # noqa: FBT001 - None: no parent
        """Is a request with *trace_id* recorded?"""
        if self.follows_parent and parent_is_sampled is not None:
            return parent_is_sampled
        return trace_id & LOW_BITS < self.bound

    @property
    def bound(self) -> int:
        """Traces whose low bits are below it are recorded, as by the SDK: all processes decide alike."""
        return round(self.ratio * 2**64)


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """
    Where traces go, for people (`endpoint` has no credentials), and which requests are recorded.

    The SDK reads the rest: headers, certificates, compression, time limits, resource attributes, and
    how often batches are sent. `max_queued` spans wait for their export at most.
    """

    endpoint: str
    sampling: Sampling
    service_name: str | None
    max_queued: int


def tracing_settings(environment: Mapping[str, str] = os.environ) -> TracingSettings | None:
    """
    Return how to trace; None if the variables do not ask for it.

    Raises:
        SettingsError: a variable asks for what Hopgate cannot do.
    """
    given = {name: value.strip() for name, value in environment.items() if value.strip()}
    endpoint = next((given[name] for name in _ENDPOINTS if name in given), None)
    exporter = given.get("OTEL_TRACES_EXPORTER", "otlp")
    is_disabled = given.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if endpoint is None or is_disabled or exporter == "none":
        return None
    if exporter != "otlp":
        raise SettingsError("OTEL_TRACES_EXPORTER: otlp or none")
    protocol = next((given[name] for name in _PROTOCOLS if name in given), "http/protobuf")
    if protocol != "http/protobuf":
        raise SettingsError("OTEL_EXPORTER_OTLP_PROTOCOL: http/protobuf is the only one; leave it out")
    if not endpoint.startswith(("http://", "https://")):
        raise SettingsError("OTEL_EXPORTER_OTLP_ENDPOINT: a URL such as http://collector:4318")
    return TracingSettings(
        values.without_secrets(endpoint), _sampling(given), _service_name(given), _max_queued(given)
    )


def _max_queued(given: Mapping[str, str]) -> int:
    text = given.get("OTEL_BSP_MAX_QUEUE_SIZE", str(_MAX_QUEUED))
    is_number = text.isascii() and text.isdigit() and len(text) < 10
    if not (is_number and 1 <= int(text) <= _LONGEST_QUEUE):
        raise SettingsError(f"OTEL_BSP_MAX_QUEUE_SIZE: a number of spans from 1 to {_LONGEST_QUEUE}")
    return int(text)


def _service_name(given: Mapping[str, str]) -> str | None:
    attributes = given.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",")
    pairs = dict(one.strip().split("=", 1) for one in attributes if "=" in one)
    return given.get("OTEL_SERVICE_NAME") or pairs.get("service.name") or None


def _sampling(given: Mapping[str, str]) -> Sampling:
    name = given.get("OTEL_TRACES_SAMPLER", "")
    if not name:
        return Sampling(_ratio(given, DEFAULT_RATIO), follows_parent=True)
    base = name.removeprefix("parentbased_")
    match base:
        case "always_on":
            ratio = 1.0
        case "always_off":
            ratio = 0.0
        case "traceidratio":
            ratio = _ratio(given, 1.0)
        case _:
            raise SettingsError(
                "OTEL_TRACES_SAMPLER: always_on, always_off or traceidratio, alone or after parentbased_"
            )
    return Sampling(ratio, follows_parent=base != name)


def _ratio(given: Mapping[str, str], default: float) -> float:
    text = given.get("OTEL_TRACES_SAMPLER_ARG")
    try:
        ratio = default if text is None else float(text)
    except ValueError:
        ratio = math.nan
    if not 0.0 <= ratio <= 1.0:
        raise SettingsError("OTEL_TRACES_SAMPLER_ARG: a number from 0 to 1")
    return ratio
