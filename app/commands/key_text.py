"""The API key that the settings name: as it is, or in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.domain.errors import SettingsError

if TYPE_CHECKING:
    from app.settings import Settings


def read(settings: Settings) -> str | None:
    """
    Return the text of HOPGATE_KEY, or the content of HOPGATE_KEY_FILE; None without both.

    Raises:
        SettingsError: the file cannot be read.
    """
    if settings.key_file is None:
        return None if settings.key is None else settings.key.get_secret_value()
    try:
        return settings.key_file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise SettingsError(f"HOPGATE_KEY_FILE: cannot read {settings.key_file}: {reason}") from None
