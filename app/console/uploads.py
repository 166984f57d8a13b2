"""Declares forms with a file: their body is read by their handler, once the session is known."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from dataclasses import replace
from typing import Any, BinaryIO

from app.console import file_form
from app.console.gate import TOKEN, Gate, Handler
from app.console.rendering import Viewer
from app.service.keys import Scope
from app.web import errors
from app.web.endpoint import Endpoint, Upload
from app.web.import_api import received
from app.web.middleware import Call
from app.web.request import Request
from app.web.response import Response
from app.web.robyn_app import RobynHandler, for_robyn


class UploadGate(Gate):
    """Declares the pages, and forms with a file as well."""

    def upload(self, scope: Scope, *, deadline_s: float, upload: Upload) -> Callable[[Handler], RobynHandler]:
        """Declare the form of a page for keys with *scope*; its handler calls `opened` first."""

        def declare(handler: Handler) -> RobynHandler:
            # All but the body is as it is for a form without a file.
            page = self.page(scope, deadline_s=deadline_s, is_form=True)(handler)
            plain: Endpoint = page.endpoint  # type: ignore[attr-defined]
            if plain.operation is None or plain.dialect is None:
                raise TypeError(handler)
            operation = replace(plain.operation, upload=upload, takes=(file_form.TYPE,))
            dialect = plain.dialect

            async def answer(call: Call[Any]) -> Response:
                session = self.cookie.read(call.request)
                return await handler(call, Viewer(call.principal, session.form_token if session else ""))

            async def handle(request: Request) -> Response:
                if not self._is_here(request):
                    return errors.not_found()
                if not self._is_own(request):
                    return self.refused("forged")
                return await self._middleware.run(operation, answer, request, dialect)

            return for_robyn(Endpoint(plain.name, handle, operation, dialect=dialect))

        return declare

    async def opened(
        self, call: Call[Any], viewer: Viewer, body: BinaryIO, *, file_field: str, to: BinaryIO
    ) -> file_form.FileForm | Response:
        """
        Write the body of *call* to *body*, and the file in it to *to*.

        Returns its form, or the answer that refuses it: what is in *to* is that of another site then.
        """
        boundary = file_form.boundary_of(call.request.headers.get("content-type", ""))
        if boundary is None:
            return self.refused("forged")
        refusal = await received(call.request, body)
        if refusal is not None:
            return refusal
        try:
            form = await asyncio.to_thread(file_form.read, body, boundary, file_field=file_field, to=to)
        except file_form.Malformed:
            return self.refused("forged")
        sent = form.fields.get(TOKEN, "")
        is_own = hmac.compare_digest(sent.encode(), viewer.form_token.encode())
        return form if is_own else self.refused("forged")
