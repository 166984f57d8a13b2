"""What is around links: domains, tags, keys and blocks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from hopgate_client import models
from hopgate_client.calls import Call, Repeat, body, given, query, segment
from hopgate_client.fields import DomainSettings, Time

if TYPE_CHECKING:
    from hopgate_client.aio.client import AsyncHopgate

M = TypeVar("M")
_PAGE = 200


class Resource:
    """Reads answers of one path of the API."""

    def __init__(self, client: AsyncHopgate) -> None:
        self.client = client

    async def read(self, model: type[M], call: Call) -> M:
        """Make *call*, and return its answer as *model*."""
        return models.read(model, (await self.client.send(call)).json())

    async def pages(self, path: str, page_size: int) -> AsyncIterator[dict[str, Any]]:
        """Give each page of a listing."""
        cursor = None
        while True:
            call = Call("GET", path, query(limit=page_size, cursor=cursor), repeat=Repeat.ALWAYS)
            page = await self.read(dict, call)
            yield page
            cursor = page.get("next_cursor")
            if cursor is None:
                return


class Domains(Resource):
    """The hosts that links are visited at."""

    async def list(self) -> tuple[models.Domain, ...]:
        """Return the domains, the default one first."""
        return (await self.read(models.DomainList, Call("GET", "/domains", repeat=Repeat.ALWAYS))).domains

    async def get(self, host: str) -> models.Domain:
        """Return a domain."""
        return await self.read(models.Domain, Call("GET", _domain(host), repeat=Repeat.ALWAYS))

    async def add(
        self, host: str, *, case_sensitive: bool = True, **settings: Unpack[DomainSettings]
    ) -> models.Domain:
        """Serve another host. Raises Conflict: it is a domain already, or links lead to it."""
        sent = body(host=host, case_sensitive=case_sensitive, **settings)
        return await self.read(models.Domain, Call("POST", "/domains", body=sent))

    async def change(self, host: str, **settings: Unpack[DomainSettings]) -> models.Domain:
        """Change what is named of a domain."""
        return await self.read(models.Domain, Call("PATCH", _domain(host), body=body(**settings)))

    async def remove(self, host: str) -> None:
        """Serve a host no more. Raises Conflict: it has links."""
        await self.client.send(Call("DELETE", _domain(host)))


class Tags(Resource):
    """The tags of links."""

    async def list(self, *, page_size: int = _PAGE) -> AsyncIterator[models.Tag]:
        """Give each tag, and how many links have it, in the order of code points."""
        async for page in self.pages("/tags", page_size):
            for one in page["tags"]:
                yield models.read(models.Tag, one)

    async def rename(self, tag: str, name: str) -> models.Retagged:
        """Rename a tag on every link that has it."""
        call = Call("PATCH", "/tags", query(tag=tag), body=body(name=name))
        return await self.read(models.Retagged, call)

    async def remove(self, tag: str) -> models.Retagged:
        """Take a tag from every link that has it."""
        return await self.read(models.Retagged, Call("DELETE", "/tags", query(tag=tag)))


class Keys(Resource):
    """API keys."""

    async def list(self) -> tuple[models.Key, ...]:
        """Return all keys, oldest first, revoked and expired ones included."""
        return (await self.read(models.KeyList, Call("GET", "/keys", repeat=Repeat.ALWAYS))).keys

    async def create(
        self,
        name: str,
        scopes: Sequence[str],
        *,
        expires_at: Time | None = None,
        expires_in: str | None = None,
        own_links: bool = False,
        domains: Sequence[str] | None = None,
        allowed_addresses: Sequence[str] = (),
        rate_limit: str | None = None,
    ) -> models.NewKey:
        """
        Make a key. Its text is in the answer alone, so a call whose answer is lost is not repeated.

        Args:
            own_links: it reaches the links that it owns, and no others.
            domains: it reaches the links of these hosts, and no others; None: of all.
            allowed_addresses: the networks that it may be used from; none: any.
            rate_limit: its requests, in place of the gateway's setting: `100 per minute`.
        """
        sent = given(
            name=name,
            scopes=scopes,
            expires_at=expires_at,
            expires_in=expires_in,
            own_links=own_links or None,
            domains=domains,
            allowed_addresses=allowed_addresses or None,
            rate_limit=rate_limit,
        )
        return await self.read(models.NewKey, Call("POST", "/keys", body=sent))

    async def rotate(self, key_id: str, *, grace: str = "1d") -> models.NewKey:
        """Give a key another secret; the present one counts for *grace*: `1h`, `7d`, `0`."""
        call = Call("POST", f"/keys/{segment(key_id)}/rotate", body=body(grace=grace))
        return await self.read(models.NewKey, call)

    async def revoke(self, key_id: str) -> None:
        """Revoke a key."""
        await self.client.send(Call("DELETE", f"/keys/{segment(key_id)}"))


class Blocks(Resource):
    """Blocked hosts and slugs: their links answer 451."""

    async def list(self, *, page_size: int = _PAGE) -> AsyncIterator[models.Block]:
        """Give each block, latest first."""
        async for page in self.pages("/blocks", page_size):
            for one in page["blocks"]:
                yield models.read(models.Block, one)

    async def add(self, *, hosts: Sequence[str] = (), slugs: Sequence[str] = ()) -> models.BlocksAdded:
        """Block hosts with their subdomains, and slugs."""
        call = Call("POST", "/blocks", body=body(hosts=hosts, slugs=slugs))
        return await self.read(models.BlocksAdded, call)

    async def remove_host(self, host: str) -> None:
        """Unblock a host. Raises NotFound: it is not blocked."""
        await self.client.send(Call("DELETE", f"/blocks/hosts/{segment(host)}"))

    async def remove_slug(self, slug: str) -> None:
        """Unblock a slug. Raises NotFound: it is not blocked."""
        await self.client.send(Call("DELETE", f"/blocks/slugs/{segment(slug)}"))


def _domain(host: str) -> str:
    return f"/domains/{segment(host)}"
