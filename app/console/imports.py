"""Importing a file of links: a dry run, or the import, told while it goes on in a page that grows."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, BinaryIO

from app.console import drafts
from app.console.links import by_field, hosts
from app.console.rendering import Pages, Viewer
from app.console.uploads import UploadGate
from app.domain.errors import FieldError, InvalidInput
from app.interchange.recognition import DIALECTS
from app.resilience.deadline import ADMIN_S, BATCH_BODY_S
from app.service.keys import Scope
from app.web.endpoint import Upload
from app.web.import_files import CONSOLE_PATH, UPLOAD_S, Asked, ImportFiles
from app.web.middleware import ApiMiddleware, Call
from app.web.response import Response
from app.web.robyn_app import Router
from app.web.services import Services

# Larger files are imported by the command line.
MAX_BYTES = 64 * 1024 * 1024
_FILE = "file"
_BLANK: drafts.Form = {"format": "", "ignore": "", "domain": "", "update": ""}
# So many refused rows are listed; the reasons count all of them.
_SHOWN = 100


def register(
    app: Router, gate: UploadGate, middleware: ApiMiddleware, pages: Pages, services: Services
) -> None:
    """Declare the pages on *app*."""
    files = ImportFiles(middleware, services.imports, services.domains, services.is_draining)
    imports = _Imports(gate, pages, services, files)
    app.get(CONSOLE_PATH)(gate.page(Scope.ADMIN, deadline_s=ADMIN_S)(imports.ask))
    upload = Upload(max_bytes=MAX_BYTES, body_s=BATCH_BODY_S)
    form = gate.upload(Scope.ADMIN, deadline_s=UPLOAD_S, upload=upload)
    app.post(CONSOLE_PATH)(form(imports.take))


class _Imports:
    def __init__(self, gate: UploadGate, pages: Pages, services: Services, files: ImportFiles) -> None:
        self._gate = gate
        self._pages = pages
        self._domains = services.domains
        self._files = files

    async def ask(self, call: Call[Any], viewer: Viewer) -> Response:
        """Return the form."""
        del call
        return self._pages.page("import.html", viewer, **self._values(viewer, {}))

    async def take(self, call: Call[Any], viewer: Viewer) -> Response:
        """Import the file, or tell what an import would do; the page grows while it goes on."""
        typed: dict[str, str] = {}

        async def receive(file: BinaryIO) -> Asked | Response:
            with self._files.new_file() as body:
                form = await self._gate.opened(call, viewer, body, file_field=_FILE, to=file)
                if isinstance(form, Response):
                    return form
                typed.update(form.fields)
                if not form.size:
                    told = self._pages.text("import_no_file")
                    raise InvalidInput([FieldError(_FILE, "file_missing", told)])
            return _asked(typed)

        try:
            taken = await self._files.take(receive)
        except InvalidInput as error:
            told = "; ".join(by_field(error).values())
            values = self._values(viewer, typed, error=told)
            return self._pages.page("import.html", viewer, status=422, **values)
        if isinstance(taken, Response):
            return taken
        parts = self._parts(
            self._files.run(call.principal, self._gate.credential(call.request), taken),
            is_dry=taken.asked.dry_run,
        )
        return self._pages.growing("import.html", viewer, parts, **self._values(viewer, typed))

    async def _parts(
        self, batches: AsyncGenerator[Sequence[Mapping[str, Any]], None], *, is_dry: bool
    ) -> AsyncGenerator[str, None]:
        """Yield the progress, a line for each percent at most, then what became of the file."""
        refused: list[Mapping[str, Any]] = []
        percent = -1
        async with aclosing(batches):
            async for batch in batches:
                for one in batch:
                    match one:
                        case {"refused": row} if len(refused) < _SHOWN:
                            refused.append(row)
                        case {"progress": progress}:
                            done = 100 * progress["bytes"] // max(1, progress["of"])
                            if done != percent:
                                percent = done
                                yield self._part("progress", progress=progress, percent=done)
                        case {"summary": summary}:
                            yield self._part("summary", summary=summary, refused=refused, is_dry=is_dry)
                        case {"error": problem}:
                            yield self._part("failure", problem=json.loads(bytes(problem)), refused=refused)

    def _part(self, kind: str, **values: Any) -> str:
        return self._pages.fragment("import_part.html", kind=kind, **values)

    def _values(self, viewer: Viewer, form: drafts.Form, *, error: str = "") -> dict[str, Any]:
        return {
            "form": {**_BLANK, **form},
            "error": error,
            "formats": sorted(DIALECTS),
            "hosts": hosts(self._domains, viewer.principal),
            "most": MAX_BYTES // 1024 // 1024,
        }


def _asked(form: drafts.Form) -> Asked:
    return Asked(
        form=form.get("format", "").strip() or None,
        ignore=drafts.read_list(form.get("ignore", "")),
        host=form.get("domain", "").strip() or None,
        # What cannot be told from a dry run is one.
        dry_run=form.get("do", "") != "import",
        updates=form.get("update", "") == "on",
    )
