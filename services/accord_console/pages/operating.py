"""The common parts of the operator's pages: authentication, forms and layout."""

from __future__ import annotations

import secrets
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

import accord
from accord_console.web import console_of, form_of, operator_of


def page(request: Request, name: str, section: str, /, **values: Any) -> Response:
    """An operator's page. `once` is new for each page: forms use it in their request id, so that a double click is one
    request."""
    console = console_of(request)
    session_id = operator_of(request)
    said = request.query_params.get("said", "")
    common: dict[str, Any] = {
        "section": section,
        "csrf": console.sessions.form_token(session_id),
        "once": secrets.token_hex(8),
    }
    return console.page(name, **common, said=said, **values)


async def posted(request: Request) -> dict[str, str]:
    """The fields of an operator's form."""
    return await form_of(request, operator_of(request))


async def services(request: Request, *needed: str) -> accord.Client:
    """A client for the operator's request. Unauthenticated for others."""
    operator_of(request)
    return await console_of(request).connections.client(*needed)
