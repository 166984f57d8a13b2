"""The composition root: complete mappings from settings to what they configure."""

from __future__ import annotations

import asyncio

import pytest

from app.bootstrap.dependencies import check_limits, limit_setting, limits
from app.concurrency.background import serving
from app.domain.errors import SettingsError
from app.ports import Policy
from app.settings import Settings

LIMIT_SETTINGS = {name for name in Settings.model_fields if name.startswith("limit_")}


def test_every_policy_has_a_setting_and_every_setting_a_policy():
    assert {limit_setting(policy) for policy in Policy} == LIMIT_SETTINGS
    assert set(limits(Settings())) == set(Policy)


@pytest.mark.parametrize("setting", sorted(LIMIT_SETTINGS))
def test_unreadable_limit_is_reported_by_its_setting(setting):
    with pytest.raises(SettingsError, match=f"HOPGATE_{setting.upper()}: "):
        check_limits(Settings.model_validate({setting: "often"}))


@pytest.mark.parametrize("setting", sorted(LIMIT_SETTINGS))
@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("10 per fortnight", "cannot read the period .*month of 30 days"),
        ("10/s fixed_window", "token_bucket or sliding_window"),
        ("10/s sliding_log", "token_bucket or sliding_window"),
        ("sliding_window", "cannot read the rate"),
        ("10/s sliding_window; 5/min", "token_bucket or sliding_window"),
        ("10/s burst 20 sliding_window", "burst"),
        ("10/s; 10 per s", "two rates"),
        ("1/d burst 9000000000000000000", "must be refilled in"),
        ("4000000000000000000/d", "at most 4096 per ns"),
    ],
)
def test_refused_limit_is_one_line_with_its_setting(setting, limit, words):
    with pytest.raises(SettingsError, match=f"HOPGATE_{setting.upper()}: .*{words}") as refused:
        check_limits(Settings.model_validate({setting: limit}))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("setting", ["limit_redirect", "limit_api", "limit_create"])
@pytest.mark.parametrize(("limit", "words"), [("10/40 years", "years"), ("5000000000/s", "32")])
def test_limit_that_redis_cannot_keep_is_refused(setting, limit, words):
    """Shared counts are smaller than those of one process."""
    alone = {"limit_not_found": "10/40 years", setting: limit}
    check_limits(Settings.model_validate(alone))
    urls = {
        "database_url": "postgresql://u@127.0.0.1:1/d",
        "redis_url": "redis://127.0.0.1:1/0",
        "amqp_url": "amqp://u@127.0.0.1:1/",
    }
    with pytest.raises(SettingsError, match=f"HOPGATE_{setting.upper()}: .*{words}"):
        check_limits(Settings.model_validate({**alone, **urls}))


class Recorder:
    def __init__(self):
        self.steps = []

    async def run(self):
        self.steps.append("run")
        try:
            await asyncio.Event().wait()
        finally:
            self.steps.append("cancelled")

    async def aclose(self):
        self.steps.append("closed")


async def test_service_is_cancelled_then_closed():
    async with serving("recorder", Recorder()) as recorder:
        await asyncio.sleep(0)
        recorder.steps.append("body")

    assert recorder.steps == ["run", "body", "cancelled", "closed"]


async def test_service_is_closed_when_the_body_fails():
    recorder = Recorder()
    with pytest.raises(KeyError):
        async with serving("recorder", recorder):
            raise KeyError

    assert recorder.steps[-1] == "closed"
