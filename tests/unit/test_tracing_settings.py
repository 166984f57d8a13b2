"""What the variables of OpenTelemetry switch on, and how the ratio decides."""

from __future__ import annotations

import pytest

from app.domain.errors import SettingsError
from app.settings.tracing import Sampling, tracing_settings


def test_ratio_decides_by_the_trace_id():
    half = Sampling(0.5, follows_parent=True)

    assert half.takes(0, None)
    assert not half.takes(2**64 - 1, None)
    assert half.takes(2**64 - 1, parent_is_sampled=True)
    assert not Sampling(0.5, follows_parent=False).takes(2**64 - 1, parent_is_sampled=True)
    assert Sampling(1.0, follows_parent=True).takes(2**128 - 1, None)


ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:geheim@collector:4318/x?key=geheim"}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        {**ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"},
        {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_TRACES_EXPORTER": "otlp"},
    ],
)
def test_tracing_is_off(environment):
    assert tracing_settings(environment) is None


def test_tracing_is_on():
    found = tracing_settings(ENDPOINT)

    assert found is not None
    assert (found.endpoint, found.sampling) == (
        "http://collector:4318/x",
        Sampling(0.01, follows_parent=True),
    )
    assert tracing_settings({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c/v1/traces"})


@pytest.mark.parametrize(
    ("sampler", "argument", "expected"),
    [
        ("always_on", "0.5", Sampling(1.0, follows_parent=False)),
        ("parentbased_always_off", "", Sampling(0.0, follows_parent=True)),
        ("traceidratio", "0.25", Sampling(0.25, follows_parent=False)),
        ("parentbased_traceidratio", "", Sampling(1.0, follows_parent=True)),
        ("", "0.5", Sampling(0.5, follows_parent=True)),
    ],
)
def test_samplers(sampler, argument, expected):
    found = tracing_settings(
        {**ENDPOINT, "OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    )

    assert found is not None
    assert found.sampling == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_TRACES_SAMPLER_ARG", "nan"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "²"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "1" + 99 * "0"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
    ],
)
def test_what_cannot_be_done_is_an_error(name, value):
    with pytest.raises(SettingsError, match=name) as caught:
        tracing_settings({**ENDPOINT, name: value})
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"OTEL_SERVICE_NAME": "a", "OTEL_RESOURCE_ATTRIBUTES": "service.name=b"}, "a"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "x=y, service.name=b"}, "b"),
        ({}, None),
    ],
)
def test_service_name(variables, expected):
    found = tracing_settings({**ENDPOINT, **variables})

    assert found is not None
    assert found.service_name == expected
