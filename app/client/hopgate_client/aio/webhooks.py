"""Webhooks: where events of links are sent, and what became of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Unpack

from hopgate_client import models
from hopgate_client.aio.access import Resource
from hopgate_client.calls import Call, Repeat, body, given, segment
from hopgate_client.fields import Time, WebhookChanges, WebhookSettings

_PAGE = 200
# The gateway answers when the server of the webhook has.
_TEST_S = 30.0


class Webhooks(Resource):
    """The webhooks of a gateway."""

    async def list(self) -> tuple[models.Webhook, ...]:
        """Return all webhooks, oldest first."""
        call = Call("GET", "/webhooks", repeat=Repeat.ALWAYS)
        return (await self.read(models.WebhookList, call)).webhooks

    async def get(self, webhook_id: str) -> models.Webhook:
        """Return a webhook."""
        return await self.read(models.Webhook, Call("GET", _path(webhook_id), repeat=Repeat.ALWAYS))

    async def create(self, url: str, **settings: Unpack[WebhookSettings]) -> models.NewWebhook:
        """
        Send events of links to *url*.

        Its secret is in the answer alone, so a call whose answer is lost is not repeated.
        """
        call = Call("POST", "/webhooks", body=body(url=url, **settings))
        return await self.read(models.NewWebhook, call)

    async def change(self, webhook_id: str, **changes: Unpack[WebhookChanges]) -> models.Webhook:
        """Change what is named of a webhook."""
        return await self.read(models.Webhook, Call("PATCH", _path(webhook_id), body=body(**changes)))

    async def remove(self, webhook_id: str) -> None:
        """Remove a webhook, and what was to be delivered."""
        await self.client.send(Call("DELETE", _path(webhook_id)))

    async def rotate(self, webhook_id: str, *, grace: str = "1d") -> models.NewWebhook:
        """Give a webhook another secret; the present one signs as well for *grace*: `1h`, `7d`, `0`."""
        call = Call("POST", _path(webhook_id, "/rotate"), body=body(grace=grace))
        return await self.read(models.NewWebhook, call)

    async def deliveries(self, webhook_id: str, *, page_size: int = _PAGE) -> AsyncIterator[models.Delivery]:
        """Give what was and will be delivered, latest event first."""
        async for page in self.pages(_path(webhook_id, "/deliveries"), page_size):
            for one in page["deliveries"]:
                yield models.read(models.Delivery, one)

    async def replay(self, webhook_id: str, *, since: Time | None = None) -> models.Replay:
        """Deliver again what is dead, or the events from *since* on."""
        call = Call("POST", _path(webhook_id, "/replay"), body=given(since=since))
        return await self.read(models.Replay, call)

    async def test(self, webhook_id: str) -> models.WebhookTest:
        """Send a test message, once, and return what came of it."""
        call = Call("POST", _path(webhook_id, "/test"), timeout_s=_TEST_S)
        return await self.read(models.WebhookTest, call)


def _path(webhook_id: str, rest: str = "") -> str:
    return f"/webhooks/{segment(webhook_id)}{rest}"
