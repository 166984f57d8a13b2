r"""
The rules of texts as regular expressions, for the OpenAPI document.

`app.domain`, `app.web.conditions` and `app.web.links_api` enforce the rules. What matches here is
accepted there; tests join the two. The dialect is that of ECMAScript, which JSON Schema asks for:
Python reads these expressions alike.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from app.domain import target as target_rules
from app.domain.policy import WEB
from app.domain.rules import CONTROLS
from app.domain.rules import ROBOTS as ROBOTS_WORDS
from app.domain.slug import RESERVED, is_well_formed

# JSON in UTF-8 has no surrogates, so they need not be left out.
PRINTABLE = rf"^[^{CONTROLS}]*$"

_WORD = f"(?:{'|'.join(ROBOTS_WORDS)})"
ROBOTS = f"^{_WORD}(?: *, *{_WORD})*$"

SLUG = "^[A-Za-z0-9_-]*$"
_RESERVED = sorted(word for word in RESERVED if is_well_formed(word))
RESERVED_SLUG = "^(?:{})$".format(
    "|".join("".join(f"[{letter.upper()}{letter}]" for letter in word) for word in _RESERVED)
)

# --- targets ----------------------------------------------------------------------------

# Hosts take more characters than names in the DNS, as they do in browsers.
_DIGITLESS = r"A-Za-z_~!$&'()*+,;=\-"
# What begins with xn-- must be valid Punycode, which no expression can check.
_LABEL = rf"(?![Xx][Nn]--)[{_DIGITLESS}0-9]{{1,63}}"
# Not a number, as in 10.1, which is an IPv4 address; not the scheme once more.
_TOP = rf"(?![Xx][Nn]--|[Hh][Tt][Tt][Pp][Ss]?(?:[.:/?#]|$))[{_DIGITLESS}][{_DIGITLESS}0-9]{{0,62}}\.?"
_HOST = rf"(?![^/?#:]{{{target_rules.MAX_HOST_LENGTH + 1}}})(?:{_LABEL}\.)*{_TOP}"
# Latin, Greek, Cyrillic, kana, Han and Hangul. Labels are short, because Punycode is longer.
_SCRIPTS = (
    r"A-Za-z0-9\u00e0-\u00f6\u00f8-\u02af\u03b1-\u03c9\u0430-\u044f"
    r"\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3"
)
_SCRIPTS_LABEL = rf"[{_SCRIPTS}](?:-?[{_SCRIPTS}]){{0,5}}"
_SCRIPTS_HOST = rf"(?:{_SCRIPTS_LABEL}\.){{1,3}}{_TOP}"
_PORT = r"(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}))?"
# Without the default ports, which the canonical form leaves out.
_KEPT_PORT = r"(?::(?:[1-9][0-9]{3}|[1-5][0-9]{4}))?"
# Characters that a URL keeps as they are, so that it is as long in canonical form as it is typed.
_KEPT = r"A-Za-z0-9_~!$&()*+,;=:@\-"
_SEGMENT = rf"[{_KEPT}](?:[{_KEPT}.]|%[0-9A-Fa-f]{{2}})*"
_AFTER_MARK = rf"(?:[{_KEPT}./?]|%[0-9A-Fa-f]{{2}})*"
_KEPT_REST = rf"(?:/(?:{_SEGMENT})?)+(?:\?{_AFTER_MARK})?(?:#{_AFTER_MARK})?"
# Any others; the longest of them grows to twelve characters in canonical form.
_REST = r"[/?#][^\x00-\x20\\\x7f-\x9f\u2028\u2029\ufeff]{0,600}"
_KEPT_URL = f"{_HOST}{_KEPT_PORT}(?:{_KEPT_REST})?"
_WEB_URL = f"(?:{_KEPT_URL}|(?:{_HOST}|{_SCRIPTS_HOST}){_PORT}(?:{_REST})?)"
TARGET = f"^[Hh][Tt][Tt][Pp][Ss]?://{_WEB_URL}$"
# Of a webhook: without a user name, and without TLS only if the operator allows it.
HOOK = f"^[Hh][Tt][Tt][Pp][Ss]://{_KEPT_URL}$"
_APP_TARGETS = {
    "mailto": r"[a-z0-9]{1,60}@(?:[a-z]{1,60}\.){1,3}[a-z]{2,20}(?:\?subject=[A-Za-z0-9]{0,60})?",
    "tel": r"\+?[0-9]{1,32}",
}
_APP_LINK = r"//[a-z]{1,60}(?:/[A-Za-z0-9._~-]{1,60}){0,9}(?:\?[A-Za-z0-9=&]{1,60})?"


def target(schemes: Collection[str]) -> str:
    """Return `TARGET` for these *schemes*, in lower case."""
    if set(schemes) == WEB:
        return TARGET
    web = [f"{scheme}://{_WEB_URL}" for scheme in sorted(WEB & set(schemes))]
    others = [
        f"{re.escape(scheme)}:(?:{_APP_TARGETS.get(scheme, _APP_LINK)})"
        for scheme in sorted(set(schemes) - WEB)
    ]
    return f"^(?:{'|'.join([*web, *others])})$"


# What a block names: names without digits at their end, which would be addresses.
BLOCKED_HOST = r"^(?:(?![Xx][Nn]--)[a-z0-9-]{1,63}\.){0,3}(?![Xx][Nn]--)[a-z][a-z-]{0,60}$"

# --- times ------------------------------------------------------------------------------

# With any offset from UTC, the first and the last year reach into years that are refused.
_EDGES, _BETWEEN = (
    "(?:2000|9998)",
    "(?:200[1-9]|20[1-9][0-9]|2[1-9][0-9]{2}|[3-8][0-9]{3}|9[0-8][0-9]{2}|99[0-8][0-9]|999[0-7])",
)
_DAY_AND_TIME = (
    r"-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
)
TIME = rf"^(?:{_EDGES}{_DAY_AND_TIME}Z|{_BETWEEN}{_DAY_AND_TIME}(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]))$"

# --- parameters -------------------------------------------------------------------------

# 1 to 18 digits in Base64, without padding: groups of three, and one or two that are left.
_TWO_OF_THREE = "(?:[MN][DTjz]|O[DT])[AEIMQUYcgk]"
_THREE = f"{_TWO_OF_THREE}[w-z0-5]"
CURSOR = f"^(?:(?:{_THREE}){{1,6}}|(?:{_THREE}){{0,5}}(?:(?:[MN][AQgw]|O[AQ])|{_TWO_OF_THREE}))$"

# The id of an API key, or a word that is shorter than any.
OWNER = "^(?:me|none|[0-9A-Za-z]{8})$"

_ETAG = '(?:W/)?"[!#-~]*"'
ETAGS = f"^{_ETAG}(?:, ?{_ETAG})*$"

# Of listings with filters, another order, or of tags: a digest and a position.
LISTING_CURSOR = "^q[A-Za-z0-9_-]{16,4096}$"
ANY_CURSOR = f"{CURSOR}|{LISTING_CURSOR}"

# A host without its port, in ASCII or in another script.
HOST = f"^(?:{_HOST}|{_SCRIPTS_HOST})$"
# One to eight terms of three or more letters or digits; other characters are as good, and some fold to fewer.
SEARCH = "^[A-Za-z0-9./_-]{3,30}(?: [A-Za-z0-9./_-]{3,30}){0,7}$"
