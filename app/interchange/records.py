"""One row becomes a link, or the reasons why it does not; there is nothing between."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import msgspec

from app.domain import rules, slug, utm
from app.domain.domains import Domain, DomainIndex, parse
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import MAX_ALIASES, LinkFields, Slug
from app.domain.policy import WEB_ONLY, TargetPolicy
from app.interchange.columns import Column, Meaning, Restriction, Role, normalised
from app.interchange.dialect import Dialect
from app.interchange.errors import Unreadable
from app.interchange.inert import terminal_safe
from app.interchange.values import ShortLink, looks_short


class Check(Protocol):
    """Judges a link of a file."""

    def __call__(
        self, wanted: str | None, fields: LinkFields, named: str = "", *, is_own: bool = True
    ) -> tuple[Slug | None, LinkFields, Domain]:
        """
        Return the key, the fields in canonical form, and the domain.

        Args:
            wanted: the slug; None: a new one.
            named: the host of the domain; empty: that of the import.
            is_own: *named* is a domain of this service; otherwise one that is unknown plays no part.

        Raises:
            InvalidInput: with every rule that is broken.
        """
        ...

    def aliases(self, texts: Sequence[str]) -> tuple[Slug, ...]:
        """Return the keys of aliases, some behind the host of their domain; raises InvalidInput."""
        ...


_DEFAULT = DomainIndex("").default
LINK_FIELDS = frozenset(field.name for field in dataclasses.fields(LinkFields))
_SLUG_FIELDS = frozenset({"slug", "short_link", "path"})
_FIRST_YEAR, _LAST_YEAR = 2000, 9998


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRecord:
    """
    A link as files hold it.

    `slug` is a key, None where the file names none. `visits` are the redirects counted so far,
    `spent_visits` those of them that `max_visits` has given out. `owner` is the id of a key, which need not
    be there. `named` are the fields that the
    file has a column for: the others are defaults, which nothing says of the link.
    """

    slug: Slug | None
    fields: LinkFields
    domain: Domain = _DEFAULT
    aliases: tuple[Slug, ...] = ()
    created_at: datetime | None = None
    visits: int = 0
    spent_visits: int = 0
    owner: str | None = None
    named: frozenset[str] = dataclasses.field(default=LINK_FIELDS, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The lines `line` to `last_line` of a file are this link. Of a JSON document they are item numbers."""

    line: int
    last_line: int
    record: LinkRecord


@dataclass(frozen=True, slots=True)
class Refused:
    """These lines were left out, and why. `text` shows what they are: the target, if it could be read."""

    line: int
    last_line: int
    errors: tuple[FieldError, ...]
    text: str


@dataclass(slots=True)
class _Taken:
    """
    What the columns of a row have said so far.

    `host` is that of its short URL; `perhaps` are columns that may be the short link if no other is.
    """

    fields: dict[str, Any]
    host: str
    errors: list[FieldError]
    named: set[str]
    perhaps: list[str]


class _DomainCheck:
    def __init__(
        self, own_hosts: Collection[str], policy: TargetPolicy, index: DomainIndex, host: str | None
    ) -> None:
        self._own_hosts = own_hosts
        self._policy = policy
        self._index = index
        self._host = host

    def __call__(
        self, wanted: str | None, fields: LinkFields, named: str = "", *, is_own: bool = True
    ) -> tuple[Slug | None, LinkFields, Domain]:
        errors: list[FieldError] = []
        parsed = None
        index, policy = self._index, self._policy
        domain = _served(index, named) or (None if named and is_own else index.named(self._host))
        if domain is None:
            message = "is no domain of this service; --ignore domain imports all for one domain"
            raise InvalidInput([FieldError("domain", "domain_unknown", message)])
        try:
            parsed = policy.free(parse(domain, wanted, slug.MOVED)) if wanted is not None else None
        except InvalidInput as error:
            errors += error.errors
        try:
            fields = rules.checked(fields, own_hosts=self._own_hosts, policy=policy)
        except InvalidInput as error:
            errors += error.errors
        if errors:
            raise InvalidInput(errors)
        return parsed, fields, domain

    def aliases(self, texts: Sequence[str]) -> tuple[Slug, ...]:
        keys: dict[Slug, None] = {}
        errors: list[FieldError] = []
        for text in texts:
            host, _, name = text.rpartition("/")
            domain = _served(self._index, host) if host else self._index.default
            try:
                if domain is None:
                    errors.append(FieldError("aliases", "domain_unknown", "name no domain of this service"))
                else:
                    keys[self._policy.free(parse(domain, name, slug.MOVED))] = None
            except InvalidInput as error:
                errors += (FieldError("aliases", one.code, one.message) for one in error.errors)
        if len(keys) > MAX_ALIASES:
            errors.append(FieldError("aliases", "aliases_too_many", f"must be {MAX_ALIASES} at most"))
        if errors:
            raise InvalidInput(errors)
        return tuple(keys)


def domain_check(
    own_hosts: Collection[str],
    policy: TargetPolicy = WEB_ONLY,
    domains: DomainIndex | None = None,
    host: str | None = None,
) -> Check:
    """
    Return the rules of `app.domain` as a check.

    Args:
        domains: those that there are; None: the default one.
        host: of the domain of links that name none; None: the default one.
    """
    return _DomainCheck(own_hosts, policy, domains or DomainIndex(""), host)


def _served(domains: DomainIndex, host: str) -> Domain | None:
    """Return the domain at *host*, as a file has it."""
    try:
        return domains.find(host, "domain") if host else None
    except InvalidInput:
        return None


class RecordReader:
    """
    Turns the rows of one file into links; remembers what it left out, and the file's domain.

    Args:
        ignore: columns that the operator leaves out, however they restrict a link. `domain`
            stands for the domains of short URLs as well.
    """

    def __init__(self, dialect: Dialect, check: Check, ignore: Iterable[str], *, is_csv: bool) -> None:
        self._dialect = dialect
        self._cell: Callable[[str], str] = dialect.cell if is_csv else str
        self._check = check
        self._ignore = frozenset(map(normalised, ignore))
        self._roles: dict[str, Role] = {}
        self._domain: str | None = None
        # In the order of the file, as spelled there.
        self.left_out: dict[str, Meaning] = {}
        self.without_slug = 0

    def role(self, name: str) -> Role:
        """Return what the column *name* is in this file."""
        found = self._roles.get(name)
        if found is None:
            found = Meaning.IGNORED if self._is_ignored(name) else self._dialect.role(name)
            self._roles[name] = found
            if found in (Meaning.UNKNOWN, Meaning.NAME, Meaning.IGNORED):
                self.left_out[name] = Meaning(found)
        return found

    def read(
        self, line: int, last_line: int, row: Iterable[tuple[str, Role, object]], shown: str = ""
    ) -> Accepted | Refused:
        """
        Return the link that *row* describes: names, what `role` says of them, and values.

        Args:
            shown: stands for a refused row without a target.
        """
        taken = _Taken({}, "", [], set(), [])
        errors = taken.errors
        for name, role, value in row:
            if isinstance(role, Column):
                taken.named.add(role.field)
            if value is None or value == "":
                continue
            if isinstance(role, Column):
                self._take(taken, name, role, value)
            else:
                self._judge(taken, name, role, value)
        if taken.named.isdisjoint(_SLUG_FIELDS):
            # A new slug would end the link that one of these may hold.
            errors += map(_not_understood, taken.perhaps)
        text = str(taken.fields.get("long_url") or shown)
        domain = taken.host or taken.fields.get("domain") or ""
        record = self._record({**taken.fields, "domain": domain}, taken.named, errors)
        is_served = bool(domain) and record is not None and record.domain.host == domain.casefold()
        if not errors and not self._dialect.has_domains and not is_served:
            self._check_domain(domain, errors)
        if errors or record is None:
            return Refused(line, last_line, tuple(errors), text)
        self.without_slug += record.slug is None
        return Accepted(line, last_line, record)

    def _is_ignored(self, name: str) -> bool:
        path = normalised(name)
        while path:
            if path in self._ignore:
                return True
            path = path.rpartition(".")[0]
        return False

    def _take(self, taken: _Taken, name: str, column: Column, value: object) -> None:
        field = "slug" if column.field in _SLUG_FIELDS else column.field
        try:
            read = column.read(self._cell(value) if isinstance(value, str) else value)
        except Unreadable as error:
            taken.errors.append(FieldError(field, error.code, error.message))
            return
        if isinstance(read, ShortLink):
            taken.host = read.host or taken.host
            read = read.slug
        if read is not None and taken.fields.setdefault(field, read) != read:
            one, other = (terminal_safe(str(text), 80) for text in (taken.fields[field], read))
            where = f"‘{terminal_safe(name, 80)}’: leave one out with --ignore"
            message = f"is {one} in one column, and {other} in {where}"
            taken.errors.append(FieldError(field, "columns_contradict", message))

    @staticmethod
    def _judge(taken: _Taken, name: str, role: Restriction | Meaning, value: object) -> None:
        """Say what a column that is not taken over does to its row."""
        if isinstance(role, Restriction):
            if role.restricts(value):
                taken.errors.append(_restricted(name))
        elif role is Meaning.SHORT_LINK and value not in ([], {}):
            taken.errors.append(_not_understood(name))
        elif role is Meaning.NAME or (role is Meaning.UNKNOWN and looks_short(value)):
            taken.perhaps.append(name)

    def _record(self, found: dict[str, Any], named: set[str], errors: list[FieldError]) -> LinkRecord | None:
        wanted: str | None = found.pop("slug", None)
        created_at: datetime | None = found.pop("created_at", None)
        visits: int = found.pop("visits", None) or 0
        spent: int | None = found.pop("spent_visits", None)
        owner: str | None = found.pop("owner", None)
        tagged = {name: value for name in utm.NAMES if (value := found.pop(name, None)) is not None}
        named_host: str = found.pop("domain", None) or ""
        host = "" if "domain" in self._ignore else named_host
        texts: tuple[str, ...] = found.pop("aliases", None) or ()
        if host != named_host:
            texts = tuple(text.rpartition("/")[2] for text in texts)
        if wanted is None and not self._dialect.slug_is_optional and "slug" not in {e.field for e in errors}:
            errors.append(FieldError("slug", "slug_missing", "is missing"))
        if created_at is not None and not _FIRST_YEAR <= created_at.year <= _LAST_YEAR:
            message = f"must lie in the years {_FIRST_YEAR} to {_LAST_YEAR}"
            errors.append(FieldError("created_at", "time_out_of_range", message))
        try:
            described = utm.patched(LinkFields(**{"long_url": "", **found}), tagged)
            parsed, fields, domain = self._check(wanted, described, host, is_own=self._dialect.has_domains)
            aliases = self._check.aliases(texts)
            if parsed in aliases:
                error = FieldError("aliases", "alias_same", "must not name the slug of the link")
                raise InvalidInput([error])
        except InvalidInput as error:
            # A value that could not be read was reported already.
            reported = {reason.field for reason in errors}
            errors += [reason for reason in error.errors if reason.field not in reported]
            return None
        if spent is None:
            # Other formats do not say which visits their limit counted: all, so none is given twice.
            spent = visits if fields.max_visits is not None else 0
        return LinkRecord(
            slug=parsed,
            fields=fields,
            domain=domain,
            aliases=aliases,
            created_at=created_at,
            visits=visits,
            spent_visits=spent,
            owner=owner,
            named=LINK_FIELDS & named,
        )

    def _check_domain(self, domain: str, errors: list[FieldError]) -> None:
        if "domain" in self._ignore:
            return
        named = domain.casefold()
        if self._domain is None:
            self._domain = named
        elif self._domain != named:
            message = (
                f"is {terminal_safe(named, 80) or 'the default'}, and the file's first is"
                f" {terminal_safe(self._domain, 80) or 'the default'}: import one domain at a time,"
                " or all with --ignore domain"
            )
            errors.append(FieldError("domain", "domains_several", message))


def _restricted(name: str) -> FieldError:
    shown = terminal_safe(name, 80)
    message = f"restricts the link in a way that is not taken over: import it without with --ignore ‘{shown}’"
    return FieldError(shown, "column_restricts", message)


def _not_understood(name: str) -> FieldError:
    shown = terminal_safe(name, 80)
    message = f"may be the short link, and is not understood: leave it out with --ignore ‘{shown}’"
    return FieldError(shown, "column_unknown_slug", message)


class RecordKeys:
    """
    Names records that have no slug, so that a file that grew imports only what is new.

    The key is a digest of the link and of how many equal ones came before it in the file. It omits
    what a later export of the same links counts on (visits), and what the link leaves at its default,
    so that it outlives the addition of a field.
    """

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._repeated: Counter[bytes] = Counter()

    def key(self, record: LinkRecord) -> str:
        """Return the key of the next record of the file."""
        digest = hashlib.sha256(_identity(record)).digest()[:16]
        # Half of the digest suffices for memory: two links that share it are numbered on, in the same order.
        short = digest[:8]
        if short in self._seen:
            self._repeated[short] += 1
        else:
            self._seen.add(short)
        return f"{digest.hex()}:{1 + self._repeated[short]}"


def _identity(record: LinkRecord) -> bytes:
    values: dict[str, object] = {
        field.name: value
        for field in dataclasses.fields(LinkFields)
        if (value := getattr(record.fields, field.name)) != field.default
    }
    if record.domain.domain_id:
        values["domain"] = record.domain.host
    if record.aliases:
        values["aliases"] = record.aliases
    if record.created_at is not None:
        values["created_at"] = record.created_at
    return msgspec.json.encode(values, order="sorted")
