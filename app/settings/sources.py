"""Where settings come from: the environment, then `.env`, then `hopgate.toml` in the data folder."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TextIO

from dotenv.parser import parse_stream

from app.domain.errors import SettingsError

PREFIX = "HOPGATE_"
ENV_FILE, TOML_FILE = ".env", "hopgate.toml"
# The files are inside of it, so they cannot say where it is.
_DATA_DIR = "data_dir"
# Not settings: the tag of the image in docker-compose.yml.
_OTHERS = frozenset({"VERSION"})
# Kubernetes sets these in every container, for each service whose name starts with "hopgate".
_KUBERNETES = re.compile(r"(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_KUBERNETES_PORT, _KUBERNETES_ADDRESS = re.compile(r"(\w+_)?PORT"), re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """The settings that one file sets, by field name, and its names that are no settings."""

    path: Path
    values: Mapping[str, Any]
    unknown: Sequence[str]


def data_dir(environment: Mapping[str, str], default: Path) -> Path:
    """Return the data folder of *environment*; nothing else can set it."""
    name = f"{PREFIX}{_DATA_DIR}".upper()
    given = [value for key, value in environment.items() if key.upper() == name and value]
    return absolute(Path(given[-1]) if given else default)


def absolute(path: Path) -> Path:
    """Return *path* from the root, `~` expanded; symbolic links stay."""
    with suppress(RuntimeError):  # no such user: then it is a name like any other
        path = path.expanduser()
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links


def settings_files(folder: Path, fields: Iterable[str]) -> Sequence[SettingsFile]:
    """
    Read the files in *folder* that exist; the first one that has a setting decides.

    Raises:
        SettingsError: a file cannot be read as what its name says.
    """
    known = frozenset(fields) - {_DATA_DIR}
    found = []
    for name, read in ((ENV_FILE, _read_env), (TOML_FILE, _read_toml)):
        path = folder / name
        try:
            with path.open(encoding="utf-8-sig") as file:
                given = read(file)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            message = f"cannot read {path}: {error.strerror}"
            raise SettingsError(message) from None
        except ValueError as error:
            reason = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            raise SettingsError(f"{path}: {reason}") from None
        _refuse_twice(path, given)
        values = {field: value for key, value in given.items() if (field := _field(key, name)) in known}
        unknown = [key for key in given if _field(key, name) not in known]
        # As in the environment, an empty value counts as not set.
        found.append(SettingsFile(path, {k: v for k, v in values.items() if v != ""}, unknown))
    return found


def _refuse_twice(path: Path, given: Iterable[str]) -> None:
    """A name has several spellings: in any case, and in TOML without its prefix."""
    seen: set[str] = set()
    for name in given:
        field = name.lower().removeprefix(PREFIX.lower())
        if field in seen:
            raise SettingsError(f"{path}: {name} is set twice")
        seen.add(field)


def unknown_names(
    environment: Mapping[str, str], files: Sequence[SettingsFile], fields: Iterable[str]
) -> Sequence[str]:
    """Return a sentence for each name that starts like a setting and is none."""
    known = sorted(fields)
    problems = [
        _unknown(name, known)
        for name, value in environment.items()
        if name.upper().startswith(PREFIX) and not _is_known(name.upper().removeprefix(PREFIX), value, known)
    ]
    for file in files:
        for name in file.unknown:
            if _field(name, file.path.name) == _DATA_DIR:
                problems.append(f"{name} cannot be set in {file.path}, which is inside of it")
            else:
                problems.append(f"{_unknown(name, known)} (in {file.path})")
    return problems


def loose_modes(files: Sequence[SettingsFile], secret: Iterable[str]) -> Sequence[str]:
    """Return a sentence for each file that others may write, or that holds a secret and others may read."""
    secrets = frozenset(secret)
    sentences = []
    for file in files:
        mode = file.path.stat().st_mode
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            sentences.append(f"{file.path} can be written by other users: chmod 600 {file.path}")
        elif mode & (stat.S_IRGRP | stat.S_IROTH) and secrets & file.values.keys():
            sentences.append(
                f"{file.path} holds secrets and can be read by other users: chmod 600 {file.path}"
            )
    return sentences


def is_open_to_others(path: Path) -> bool:
    """Tell whether other users can read *path*; not if it is not there."""
    try:
        return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
    except OSError:
        return False


def _read_env(file: TextIO) -> Mapping[str, Any]:
    """Return the variables of a `.env`. Values stand as they are: a `$` in a password is a `$`."""
    values: dict[str, str] = {}
    for binding in parse_stream(file):
        line = binding.original.line
        if binding.error or (binding.key is not None and binding.value is None):
            raise ValueError(f"line {line} is not NAME=VALUE")
        if binding.key in values:
            raise ValueError(f"line {line}: {binding.key} is set twice")
        if binding.key is not None:
            values[binding.key] = binding.value or ""
    return values


def _read_toml(file: TextIO) -> Mapping[str, Any]:
    try:
        return tomllib.loads(file.read())
    except RecursionError:
        message = "is nested too deeply"
        raise ValueError(message) from None


def _field(name: str, file: str) -> str:
    """Return the field that *name* in a file means: TOML may leave the prefix out, `.env` may not."""
    upper = name.upper()
    if file == TOML_FILE or upper.startswith(PREFIX):
        return upper.removeprefix(PREFIX).lower()
    return ""


def _is_known(name: str, value: str, fields: Sequence[str]) -> bool:
    return (
        name.lower() in fields
        or name in _OTHERS
        or _KUBERNETES.fullmatch(name) is not None
        or (_KUBERNETES_PORT.fullmatch(name) is not None and _KUBERNETES_ADDRESS.match(value) is not None)
    )


def _unknown(name: str, fields: Sequence[str]) -> str:
    by_letters = {field.replace("_", ""): field for field in fields}
    letters = name.lower().removeprefix(PREFIX.lower()).replace("_", "")
    near = get_close_matches(letters, by_letters, 1)
    hint = f"is {PREFIX}{by_letters[near[0]].upper()} meant?" if near else "docs/operations.md lists them"
    return f"{name} is not a setting: {hint}"
