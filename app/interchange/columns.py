"""
Column names: what they are called whatever their spelling, and what an unknown one may mean.

A column that no format declares is judged by its name. One that sounds as if it limits who gets a
link, when, or where to, refuses the rows that use it: left out, it would make public what was not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from app.interchange import values
from app.interchange.values import Converter

_DROPPED = re.compile(r"[\s_-]+")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+")

_NOTHING = frozenset({"", "null", "none", "nil", "\\n", "never", "[]", "{}"})
_FALSE = _NOTHING | values.FALSE
_TRUE = frozenset({"", "null"}) | values.TRUE
_IN_FORCE = _TRUE | {"active", "enabled", "live", "published", "public", "ok"}


@dataclass(frozen=True, slots=True)
class Column:
    """A column that is understood: which field of a link it is, and how to read it."""

    field: str
    read: Converter


class Restriction(Enum):
    """A column that restricts a link in a way Hopgate does not take over, by the values that do not."""

    ANYTHING = auto()  # any value at all, as of a password
    VALUE = auto()  # a date, a number, an address
    FLAG = auto()  # true restricts
    REVERSED_FLAG = auto()  # false restricts
    STATUS = auto()  # a word; only those of a working link do not restrict

    def restricts(self, value: object) -> bool:
        """Does *value* restrict its link?"""
        if value is None or value is False:
            return self is Restriction.REVERSED_FLAG and value is False
        if isinstance(value, list | dict):
            return bool(value)
        word = f"{value:g}" if isinstance(value, float) else str(value).strip().casefold()
        return _RESTRICTS[self](word)


_RESTRICTS: dict[Restriction, Callable[[str], bool]] = {
    Restriction.ANYTHING: lambda word: word not in ("", "null", "false"),
    Restriction.VALUE: lambda word: word not in _FALSE,
    Restriction.FLAG: lambda word: word not in _FALSE,
    Restriction.REVERSED_FLAG: lambda word: word not in _TRUE,
    Restriction.STATUS: lambda word: word not in _IN_FORCE,
}


class Meaning(Enum):
    """What else a column can be."""

    HARMLESS = auto()  # the format declares it, and Hopgate has no place for it
    UNKNOWN = auto()
    SHORT_LINK = auto()  # sounds like the short link, and is not understood
    NAME = auto()  # may be the short link in a file that has no other, as an `id` may
    IGNORED = auto()  # the operator said so


Role = Column | Restriction | Meaning


def normalised(name: str) -> str:
    """Return *name* without case, spaces, underscores and hyphens: `Long URL` and `long_url` are one."""
    return _DROPPED.sub("", name.casefold())


# Tried in this order; a stem matches anywhere in the normalised name, a word only as a whole.
_FLAGGED = re.compile(r"^(is|has|requires?)|(protected|required|enabled|set)$")
_SECRET = re.compile(
    r"passw|passcode|passphrase|pwd|secret|onetime(code|password)|kennwort|contrase|motdepasse|senha|wachtwoord|adgangskode"
    r"|clave|palavra|kodeord|(access|unlock|security|entry)(code|key)$"
    r"|passord|lösenord|hasło|haslo|heslo|parola|şifre|salasana|пароль|密码|パスワード|비밀번호"
)
_FLAG_STEMS = re.compile(
    r"archiv|disab|banned|block|suspend|delet|remov|deactiv|inactiv|private|protect|hidden|draft|paus"
    r"|quarantin|revok|trash|locked|unsafe|malicious|reported|nsfw|cloak|mask|captcha|agegate|warning"
    r"|onetime|oneuse|singleuse|burn(on|after)|selfdestruct|gesperrt|deaktiv|login|signin|membersonly|onlyfor|internal"
    r"|restrict|sensitiv|unlisted|flagged|phish|malware|broken|killed|frozen|retired|obsolete"
    r"|regex|wildcard|confidential|unpublish|offline|maintenance|inaktiv|d[eé]sactiv|versteckt|verborgen|ocult"
)
_VALUE_STEMS = re.compile(
    r"expir|valid(from|since|until|to|through)|notbefore|notafter|(active|live|start|end|open|close)(s|d)?(from|until|at|on|date)$"
    r"|activat(es|ion)|publish(at|on|date)$|timetolive|lifespan|max(imum)?(visit|click|hit|use|view|access)|limit|quota|remaining|geo|target(s|ing)|deeplink|(white|black|allow|deny|block)list"
    r"|schedul|rewrite|ablauf|gültig|gultig|caduc|redirectrule|splitt?(test|url|percent)|abtest|variant|rotat"
    r"|^(link)?(start|begin|end|stop|close)(s|d|ing)?(time|date|day|at|on|timestamp)?$|golive|availablefrom"
    r"|^validity|validdays|life(time|days)?$|(days|hours|minutes|seconds)left|(visit|click|hit|use|view)cap$|purge"
    r"|ipfilter|paywall"
    r"|embargo|launch(es)?(at|on|date)|duration|(visit|click|hit|use|view)s?left|permission|audience"
    r"|vence|vencim|scaden|verval|wygas|wygaś|срок|истека|有効期限|有效期|过期|到期|만료"
    r"|(alternat\w*|second(ary)?|backup|default|other)(url|link|target|destination)"
    r"|^(long)?(url|link|target|destination)[2-9]$"
)
_SECRET_WORDS = frozenset({"pass", "pw", "psw", "otp"})
_FLAG_WORDS = frozenset(
    {
        "pending",
        "sso",
        "oauth",
        "adult",
        "mature",
        "ban",
        "burn",
        "once",
        "frame",
        "iframe",
        "interstitial",
        "auth",
        "hide",
        "spam",
        "dead",
        "abuse",
    }
)
_VALUE_WORDS = frozenset(
    """ttl ios iphone ipad android windows macos linux desktop mobile device devices os country countries
    language languages region regions city rule rules split weight weights fallback pin cidr until
    lifetime max allowed acl role roles""".split()
)
_REVERSED = re.compile(
    r"^(is)?(active|enabled|public|published|live|available|working|valid|visible|activated|approved|verified"
    r"|online|activ[oa]|aktiv|aktiviert|actif|ativ[oa]|attiv[oa]|actief|aktywny|активен|habilitado)$"
    r"|^(redirect|link|forward)(ing|ion)?enabled$"
)
_STATUS = re.compile(r"^(link)?access(level|type|mode)?$")
_STATUS_WORDS = frozenset({"status", "state", "visibility", "lifecycle", "availability", "moderation"})

_SHORT_STEMS = re.compile(
    r"slug|short|alias|keyword|bitlink|slashtag|backhalf|vanity|permalink|tinyurl|kurz(link|url|code|adresse)|custom(url|link|ending|path|code)"
    r"|court|cort[oa]|krótk|коротк|短"
)
_SHORT_NAMES = frozenset(
    {"link", "code", "key", "path", "hash", "handle", "ending", "suffix", "linkcode", "linkpath"}
)
# Each of them is the short link in some exports, and something else in others.
_NAMES = frozenset(
    """id uid uuid identifier token name linkname linkid word tiny golink source sourceurl sourcepath
    from fromurl old oldurl oldlink request requesturi requesturl ref""".split()
)


def suspected(name: str) -> Role:
    """Return what a column called *name* may mean, if no format declares it."""
    flat = normalised(name)
    words = {word.casefold() for word in _WORDS.findall(name)}
    restriction = _suspected_restriction(flat, words)
    if restriction is not None:
        return restriction
    if flat in _SHORT_NAMES or _SHORT_STEMS.search(flat):
        return Meaning.SHORT_LINK
    return Meaning.NAME if flat in _NAMES else Meaning.UNKNOWN


def _suspected_restriction(flat: str, words: set[str]) -> Restriction | None:
    if _SECRET.search(flat) or words & _SECRET_WORDS:
        return Restriction.FLAG if _FLAGGED.search(flat) else Restriction.ANYTHING
    if _FLAG_STEMS.search(flat) or words & _FLAG_WORDS:
        return Restriction.FLAG
    if _REVERSED.search(flat):
        return Restriction.REVERSED_FLAG
    if _STATUS.search(flat) or words & _STATUS_WORDS:
        return Restriction.STATUS
    if _VALUE_STEMS.search(flat) or words & _VALUE_WORDS:
        return Restriction.VALUE
    return None
