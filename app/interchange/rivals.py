"""
The formats of other shorteners, one declaration each.

A declaration says three things of a column: which field it is, that it restricts a link in a way
Hopgate does not take over, or that it is harmless to leave out. `suspected` judges all others.
"""

from __future__ import annotations

from datetime import UTC

from app.domain import utm
from app.interchange import values
from app.interchange.dialect import Dialect, columns, names, restrictions
from app.interchange.values import Converter

# How most formats write a field; a format that differs says so.
USUAL: dict[str, Converter] = {
    "slug": values.slug,
    "short_link": values.short_link,
    "path": values.path,
    "long_url": values.url,
    "title": values.text,
    "tags": values.tags(","),
    "redirect_code": values.number,
    "valid_from": values.moment(),
    "expires_at": values.end(),
    "max_visits": values.number,
    "forward_query": values.flag,
    "override_query": values.flag,
    "enabled": values.flag,
    "external_id": values.text,
    "expired_url": values.url,
    "robots": values.text,
    "analytics": values.flag,
    "created_at": values.moment(),
    "visits": values.number,
    "domain": values.text,
    **dict.fromkeys(utm.NAMES, values.text),
}

# Columns of the UTM parameters, whether the target has them as well or not: `utm_source` and `utmSource`.
UTM = {name: name for name in utm.NAMES}

# The table of the database, the plugin that exports CSV, and the API's `stats`.
YOURLS = Dialect(
    name="yourls",
    signatures=(names("keyword url"), names("source target hits")),
    json_signatures=(names("shorturl url timestamp clicks"),),
    columns=columns(
        # YOURLS sets PHP's time zone to UTC.
        {**USUAL, "created_at": values.moment(zone=UTC)},
        slug="keyword",
        short_link="shorturl",
        path="source",
        long_url="url target",
        title="title",
        created_at="timestamp",
        visits="clicks hits",
    ),
    harmless=names("ip"),
)

# What its importer reads, what its web client exports, and the API.
SHLINK = Dialect(
    name="shlink",
    # Tables of any program have a long and a short URL.
    signatures=(names("longUrl shortCode"), names("longUrl shortUrl createdAt tags visits")),
    columns=columns(
        {**USUAL, "tags": values.tags("|,")},
        slug="shortCode",
        short_link="shortUrl",
        long_url="longUrl",
        domain="domain",
        title="title",
        tags="tags",
        created_at="dateCreated createdAt",
        valid_from="meta.validSince validSince",
        expires_at="meta.validUntil validUntil",
        max_visits="meta.maxVisits maxVisits",
        forward_query="forwardQuery",
        visits="visitsSummary.total visitsCount visits",
    ),
    restrictions=restrictions(flag="hasRedirectRules", value="redirectRules deviceLongUrls"),
    harmless=names("visitsSummary crawlable"),
    slug_is_optional=True,
)

KUTT = Dialect(
    name="kutt",
    signatures=(names("address target"),),
    columns=columns(
        USUAL,
        slug="address",
        short_link="link link.url link.link shortUrl",
        long_url="target",
        domain="domain",
        title="description",
        created_at="created_at",
        expires_at="expire_in",
        visits="visit_count",
    ),
    # The API says whether there is a password; the database holds its hash.
    restrictions=restrictions(anything="password", flag="banned", value="banned_by_id"),
    harmless=names("id uuid updated_at relative_created_at relative_expire_in user_id domain_id"),
)

BITLY = Dialect(
    name="bitly",
    signatures=(names("bitlink longUrl"), names("link longUrl"), names("link destinationUrl")),
    columns=columns(
        {**USUAL, "tags": values.tags(",|")},
        short_link="bitlink link customLink custom_bitlinks",
        path="back-half",
        long_url="longUrl destinationUrl",
        title="title",
        tags="tags",
        created_at="created_at created dateCreated",
        expires_at="expiration_at",
        visits="engagements totalClicks clicks",
    ),
    restrictions=restrictions(flag="archived is_deleted", value="deeplinks", status="status"),
    harmless=names(
        "id references created_by client_id campaign campaign_ids qr_code_ids launchpad_ids",
    ),
)

DUB = Dialect(
    name="dub",
    signatures=(names("shortLink destinationUrl"), names("shortLink url key")),
    columns=columns(
        USUAL,
        slug="key",
        short_link="shortLink",
        long_url="url destinationUrl",
        domain="domain",
        title="title",
        tags="tags",
        created_at="createdAt",
        expires_at="expiresAt",
        expired_url="expiredUrl",
        visits="clicks",
        **UTM,
    ),
    restrictions=restrictions(
        anything="password",
        flag="archived rewrite",
        value="ios android geo testVariants testStartedAt testCompletedAt disabledAt",
    ),
    harmless=names(
        """id linkId updatedAt lastClicked leads conversions sales saleAmount description image video proxy
        doIndex publicStats qrCode user userId workspaceId projectId programId partnerId tenantId externalId
        folderId tagId webhookIds comments trackConversion"""
    ),
)

CHHOTO = Dialect(
    name="chhoto",
    signatures=(names("shortlink longlink"),),
    columns=columns(
        {**USUAL, "expires_at": values.end(unix="s")},
        short_link="shortlink",
        long_url="longlink",
        title="notes",
        expires_at="expiry_time",
        visits="hits",
    ),
)

SHORTLINKER = Dialect(
    name="shortlinker",
    signatures=(names("code target"),),
    columns=columns(
        USUAL,
        slug="code",
        long_url="target",
        created_at="created_at",
        expires_at="expires_at",
        visits="click_count click",
    ),
    restrictions=restrictions(anything="password"),
)

SHORT_IO = Dialect(
    name="short.io",
    signatures=(names("originalURL path"), names("originalURL shortURL"), names("originalURL originalPath")),
    columns=columns(
        # Numbers are milliseconds; the API writes dates with their zone.
        {**USUAL, "created_at": values.moment(unix="ms"), "expires_at": values.end(unix="ms")},
        slug="path originalPath",
        short_link="shortURL secureShortURL shortLink",
        long_url="originalURL",
        domain="domain hostname",
        title="title",
        tags="tags tag",
        created_at="createdAt created",
        expires_at="expiresAt expires expiry expiryDate",
        expired_url="expiredURL",
        max_visits="clicksLimit",
        redirect_code="redirectType",
        visits="clicks click totalClicks",
        **UTM,
    ),
    restrictions=restrictions(
        anything="password",
        flag="passwordContact hasPassword cloaking archived",
        value="iphoneURL androidURL splitURL splitPercent ttl",
        status="status",
    ),
    harmless=names(
        """id idString lcpath updatedAt updated OwnerId DomainId FolderId source icon creator user duplicate
        integrationAdroll integrationFB integrationGA
        integrationGTM skipQS"""
    ),
)

REBRANDLY = Dialect(
    name="rebrandly",
    signatures=(names("slashtag destination"), names("slashtag destinationUrl")),
    columns=columns(
        USUAL,
        slug="slashtag",
        short_link="shortUrl shortLink",
        long_url="destination destinationUrl",
        domain="domainName domain domain.fullName",
        title="title",
        tags="tags",
        created_at="createdAt",
        forward_query="forwardParameters",
        visits="clicks",
    ),
    restrictions=restrictions(value="rules", status="status"),
    harmless=names(
        """id linkId domain domainId updatedAt lastClickAt lastClickDate sessions favourite isPublic https
        integrated creator ownerId workspaceId description notes image scripts"""
    ),
)

RIVALS = (YOURLS, SHLINK, KUTT, BITLY, DUB, CHHOTO, SHORTLINKER, SHORT_IO, REBRANDLY)
