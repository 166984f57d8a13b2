"""What an API key is restricted to, beside its scopes: links, domains, addresses, a rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from app.domain.errors import FieldError, InvalidInput
from app.domain.networks import checked_networks, covers
from app.ports import ApiKey
from app.service.keys import Principal, Scope

# Text of a rate → its canonical form; raises ValueError or OverflowError that say what is accepted.
ReadRate = Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restrictions:
    """As the fields of `ApiKey` of these names; `allowed_addresses` and `rate_limit` as they were typed."""

    own_links: bool = False
    domains: frozenset[int] | None = None
    allowed_addresses: Sequence[str] = ()
    rate_limit: str | None = None


def restricted(
    key: ApiKey, wanted: Restrictions, *, read_rate: ReadRate, by: Principal | None = None
) -> ApiKey:
    """
    Return *key* with the restrictions *wanted*.

    Args:
        by: the key that makes it, and has to be used from no fewer addresses; None: the command line.

    Raises:
        InvalidInput: a rule is broken.
    """
    errors: list[FieldError] = []
    if Scope.ADMIN in key.scopes:
        errors += [
            FieldError(name, "admin_restricted", "excludes the scope admin, which permits everything")
            for name, asked in (("own_links", wanted.own_links), ("domains", wanted.domains is not None))
            if asked
        ]
    if wanted.domains is not None and not wanted.domains:
        errors.append(FieldError("domains", "domains_empty", "must name at least one"))
    addresses: tuple[str, ...] = ()
    try:
        addresses = checked_networks(wanted.allowed_addresses, "allowed_addresses")
    except InvalidInput as error:
        errors += error.errors
    if by is not None and by.allowed_addresses:
        addresses = addresses or by.allowed_addresses
        if not covers(by.allowed_addresses, addresses):
            message = "has addresses from which this key cannot be used"
            errors.append(FieldError("allowed_addresses", "address_not_held", message))
    rate = None
    try:
        rate = None if wanted.rate_limit is None else read_rate(wanted.rate_limit)
    except (ValueError, OverflowError) as error:
        errors.append(FieldError("rate_limit", "rate_invalid", str(error)))
    if errors:
        raise InvalidInput(errors)
    return replace(
        key,
        own_links=wanted.own_links,
        domains=wanted.domains,
        allowed_addresses=addresses,
        rate_limit=rate,
    )
