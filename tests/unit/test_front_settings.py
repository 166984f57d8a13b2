"""What a front cannot be combined with: it answers redirects that the application never sees."""

from __future__ import annotations

import pytest

from app.bootstrap import check_settings
from app.domain.errors import SettingsError
from app.settings import Settings


async def test_front_and_access_log_exclude_each_other(tmp_path):
    await check_settings(Settings(data_dir=tmp_path, front="on"))
    await check_settings(Settings(data_dir=tmp_path, access_log="0.5"))

    with pytest.raises(SettingsError, match="HOPGATE_FRONT: the access log"):
        await check_settings(Settings(data_dir=tmp_path, front="on", access_log="0.5"))


async def test_front_and_traces_exclude_each_other(tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    await check_settings(Settings(data_dir=tmp_path))

    with pytest.raises(SettingsError, match="HOPGATE_FRONT: traces"):
        await check_settings(Settings(data_dir=tmp_path, front="on"))
