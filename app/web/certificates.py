"""The certificates of the front's TLS and their key, as files that may be replaced."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hopgate_front import Front, check_tls

from app.domain.errors import SettingsError
from app.settings import Settings

# Takes chain and key; raises ValueError with a sentence.
Use = Callable[[bytes, bytes], None]

_END = b"-----END CERTIFICATE-----"
# Tags of DER: a sequence, the two forms of time, and the version, which may be left out.
_SEQUENCE, _UTC_TIME, _TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0


@dataclass(frozen=True, slots=True)
class Certificates:
    """
    Two files in PEM.

    Attributes:
        chain: the certificate of the gateway, then those that lead to a root.
        key: its private key.
    """

    chain: Path
    key: Path

    @classmethod
    def of(cls, settings: Settings) -> Certificates | None:
        """Return the files of the settings; None without TLS."""
        if settings.tls_cert is None or settings.tls_key is None:
            return None
        return cls(settings.tls_cert, settings.tls_key)

    def check(self) -> None:
        """
        Check that the files can be used now.

        Raises:
            SettingsError: they cannot be read, or do not belong together. No secret is quoted.
        """
        self._use(check_tls)

    def secure(self, front: Front) -> None:
        """
        Let *front* serve later connections by what the files hold now.

        Raises:
            SettingsError: as `check`. What the front has stays.
        """
        self._use(front.secure)

    def valid(self) -> tuple[datetime, datetime]:
        """
        Return from when until when the first certificate is valid.

        Raises:
            SettingsError: it cannot be read.
        """
        chain = _read("HOPGATE_TLS_CERT", self.chain)
        try:
            return _validity(chain)
        except (ValueError, IndexError):
            raise SettingsError(f"HOPGATE_TLS_CERT: {self.chain} has no certificate with dates") from None

    def _use(self, use: Use) -> None:
        chain, key = _read("HOPGATE_TLS_CERT", self.chain), _read("HOPGATE_TLS_KEY", self.key)
        try:
            use(chain, key)
        except ValueError as error:
            message = f"HOPGATE_TLS_CERT, HOPGATE_TLS_KEY: {self.chain}, {self.key}: {error}"
            raise SettingsError(message) from None


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{name}: cannot read {path}: {error.strerror}") from None


def _validity(chain: bytes) -> tuple[datetime, datetime]:
    first, end, _ = chain.partition(_END)
    der = ssl.PEM_cert_to_DER_cert((first[first.index(b"-----BEGIN CERT") :] + end).decode("ascii"))
    [(_, certificate), *_] = _elements(der)
    [(_, signed), *_] = _elements(certificate)
    fields = [field for field in _elements(signed) if field[0] != _VERSION]
    # Serial number, algorithm, issuer; then the dates.
    tag, dates = fields[3]
    if tag != _SEQUENCE:
        raise ValueError("no dates")
    [start, until] = map(_time, _elements(dates))
    return start, until


def _elements(content: bytes) -> list[tuple[int, bytes]]:
    """Return the tags and contents of the elements of DER in *content*."""
    found, at = [], 0
    while at < len(content):
        tag, length, at = content[at], content[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(content[at : at + size]), at + size
        if at + length > len(content):
            raise ValueError("cut off")
        found.append((tag, content[at : at + length]))
        at += length
    return found


def _time(element: tuple[int, bytes]) -> datetime:
    tag, text = element[0], element[1].decode("ascii")
    if tag == _UTC_TIME:
        # Two digits stand for 1950 to 2049.
        text = f"{20 if int(text[:2]) < 50 else 19}{text}"
    elif tag != _TIME:
        raise ValueError("no time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
