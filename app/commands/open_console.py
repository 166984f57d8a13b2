"""`hopgate console`: makes a link that signs in to the console once."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from app.service.keys import ALL_SCOPES, Scope
from app.service.sessions import new_link

if TYPE_CHECKING:
    from app.ports import ApiKeyStore
    from app.settings import Settings

_NAME = "console"


async def sign_in_url(settings: Settings, store: ApiKeyStore, scopes: frozenset[Scope] = ALL_SCOPES) -> str:
    """
    Store a key with *scopes* that the link alone can use; return the link.

    Raises:
        Unavailable: the store did not answer.
    """
    from app.bootstrap import utc_now

    link, key = new_link(_NAME, scopes, now=utc_now(), choice=secrets.choice, random=secrets.token_bytes)
    await store.add_key(key)
    return f"{settings.public_url}/console/sign-in?link={link.text}"
