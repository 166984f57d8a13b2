"""Files of links: exports and imports."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, Literal, Unpack

from hopgate_client import models
from hopgate_client.calls import Call, Repeat, query
from hopgate_client.errors import HopgateError, Problem, UnexpectedAnswer, of
from hopgate_client.fields import Filters

if TYPE_CHECKING:
    from hopgate_client.sync.client import Hopgate

# A gateway that receives a file answers when it has read it.
_READ_S = 60.0
# How an export that is not whole ends; no link is written like it.
_ENDED = {"jsonl": b'{"error":', "csv": b"error: "}


class Transfer:
    """Exports and imports. They take as long as their files are large: the deadline is that of the head."""

    def __init__(self, client: Hopgate) -> None:
        self._client = client

    def export_file(
        self, *, form: Literal["jsonl", "csv"] = "jsonl", **filters: Unpack[Filters]
    ) -> Iterator[bytes]:
        """
        Give a file of all links, or of those that pass *filters*, in parts.

        Raises:
            HopgateError: also after the last part: what was given is not the whole file.
        """
        call = Call("GET", "/export", query(format=form, **filters), repeat=Repeat.ALWAYS)
        last = b""
        with self._client.stream(call) as parts:
            for part in parts:
                # Its last line may say that the rest is missing.
                lines = (last + part).splitlines(keepends=True)
                last = lines.pop()
                if lines:
                    yield b"".join(lines)
        if last.startswith(_ENDED[form]):
            raise HopgateError(f"the export is not whole: {last.decode(errors='replace').strip()}")
        if last:
            yield last

    def import_file(
        self,
        file: IO[bytes],
        *,
        form: str | None = None,
        ignore: Sequence[str] = (),
        domain: str | None = None,
        dry_run: bool = False,
        update: bool = False,
        allow_refused: bool = False,
        on_progress: Callable[[models.ImportProgress], object] = lambda _: None,
    ) -> models.ImportReport:
        """
        Import *file*, of Hopgate or another shortener, from its start.

        Args:
            file: it must be seekable.
            on_progress: is called as rows are stored.

        Returns:
            How many rows were stored, and each that was refused.

        Raises:
            InvalidRequest: the file is not recognised; nothing was stored.
            HopgateError: the import ended early. The same call goes on: what is stored is recognised.
        """
        asked = query(
            format=form,
            ignore=ignore,
            domain=domain,
            dry_run=dry_run or None,
            update=update or None,
            allow_refused=allow_refused or None,
        )
        call = Call("POST", "/import", asked, file=file, deadline_s=3600.0, timeout_s=_READ_S)
        refused: list[models.RefusedRow] = []
        with self._client.stream(call) as parts:
            for line in _lines(parts):
                match line:
                    case {"refused": document}:
                        refused.append(models.read(models.RefusedRow, document))
                    case {"progress": document}:
                        on_progress(models.read(models.ImportProgress, document))
                    case {"error": document}:
                        raise of(models.read(Problem, document), may_have_applied=not dry_run)
                    case {"summary": document}:
                        summary = models.read(models.ImportSummary, document)
                        return models.ImportReport(summary, tuple(refused), document)
        raise UnexpectedAnswer("the import ended early: send the file again", may_have_applied=not dry_run)


def _lines(parts: Iterator[bytes]) -> Iterator[Any]:
    rest = b""
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield json.loads(line)
