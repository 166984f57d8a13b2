"""A format of links, as one declaration; and how a set of column names is taken for one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from app.interchange.columns import Column, Meaning, Restriction, Role, normalised, suspected
from app.interchange.values import Converter


def names(spellings: str) -> frozenset[str]:
    """Return the names in *spellings*, which spaces part, in normalised form."""
    return frozenset(map(normalised, spellings.split()))


def columns(read: Mapping[str, Converter], **fields: str) -> Mapping[str, Column]:
    """
    Return the columns of a format.

    Args:
        read: how to read each field.
        fields: the names of the columns that are this field, in any spelling without spaces.
    """
    return {
        name: Column(target, read[target])
        for target, spellings in fields.items()
        for name in names(spellings)
    }


def restrictions(
    *, anything: str = "", value: str = "", flag: str = "", status: str = ""
) -> Mapping[str, Restriction]:
    """Return the columns that restrict a link, by the kind of their values."""
    kinds = (
        (Restriction.ANYTHING, anything),
        (Restriction.VALUE, value),
        (Restriction.FLAG, flag),
        (Restriction.STATUS, status),
    )
    return {name: kind for kind, spellings in kinds for name in names(spellings)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """
    One format. All names of columns are normalised; those of JSON members are dotted.

    `signatures` are the sets of columns by which a file is recognised: one of them must be in the
    file in full. `json_signatures` are more of them, for JSON only.
    """

    name: str
    signatures: tuple[frozenset[str], ...]
    json_signatures: tuple[frozenset[str], ...] = ()
    columns: Mapping[str, Column]
    restrictions: Mapping[str, Restriction] = field(default_factory=dict)
    # Covers the members below a name as well: `references` is `references.group`, too.
    harmless: frozenset[str] = frozenset()
    # Is a file with further columns none of this format? For one whose cells mean something else elsewhere.
    is_exact: bool = False
    # May a row leave its slug empty, and get a new one?
    slug_is_optional: bool = False
    # Does each row name its own domain, one of those that are served here?
    has_domains: bool = False
    # Applied to every cell of a CSV before it is read.
    cell: Callable[[str], str] = str

    def matches(self, given: Collection[str], *, is_json: bool) -> bool:
        """Do the column names *given* make a file of this format?"""
        signatures = self.signatures + (self.json_signatures if is_json else ())
        columns = set(given)
        if self.is_exact:
            return columns in signatures
        return any(signature <= columns for signature in signatures)

    def declares(self, name: str) -> bool:
        """Does the format say what the column *name* is?"""
        return self._declared(name) is not None

    def role(self, spelling: str) -> Role:
        """Return what the column spelled *spelling* is."""
        return self._declared(normalised(spelling)) or suspected(spelling)

    def has_field(self, target: str, given: Collection[str]) -> bool:
        """Is one of the columns *given* the field *target*?"""
        return any(column.field == target for name in given if (column := self.columns.get(name)))

    def _declared(self, name: str) -> Role | None:
        if (column := self.columns.get(name)) is not None:
            return column
        path = name
        while path:
            if (restriction := self.restrictions.get(path)) is not None:
                return restriction
            if path in self.harmless:
                return Meaning.HARMLESS
            path = path.rpartition(".")[0]
        return None


def candidates(known: Iterable[Dialect], given: Collection[str], *, is_json: bool) -> list[Dialect]:
    """
    Return the formats that column names *given* fit; one, if it can be told.

    Of several, one that declares every column beats those that do not.
    """
    fitting = [dialect for dialect in known if dialect.matches(given, is_json=is_json)]
    complete = [dialect for dialect in fitting if all(map(dialect.declares, given))]
    return complete if len(fitting) > 1 and len(complete) == 1 else fitting
