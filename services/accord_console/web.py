"""The common parts of all pages: the console's parts, forms, cookies, responses for people and for programs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from accord import errors
from accord_console.annotation.desk import Desk
from accord_console.annotation.task_page import TaskPages
from accord_console.auth.invites import Invite, Invites
from accord_console.auth.sessions import ANNOTATOR_COOKIE, OPERATOR_COOKIE, AnnotatorSession, Sessions
from accord_console.comparisons.comparisons import Comparisons
from accord_console.comparisons.runner import ComparisonRunner
from accord_console.connections import Connections
from accord_console.settings import ConsoleSettings

MOST_FORM_BYTES = 256 * 1024

HTTP_STATUS: Mapping[type[errors.AccordError], int] = {
    errors.InvalidArgument: 400,
    errors.Unauthenticated: 401,
    errors.PermissionDenied: 403,
    errors.NotFound: 404,
    errors.AlreadyExists: 409,
    errors.Aborted: 409,
    errors.FailedPrecondition: 409,
    errors.ResourceExhausted: 429,
    errors.Unavailable: 503,
    errors.DeadlineExceeded: 504,
}


@dataclass(frozen=True)
class Console:
    """The parts that pages need. `draining` is set when the process is about to stop, which ends the streams."""

    settings: ConsoleSettings
    templates: Environment
    connections: Connections
    invites: Invites
    sessions: Sessions
    task_pages: TaskPages
    desk: Desk
    comparisons: Comparisons
    comparison_runner: ComparisonRunner
    draining: asyncio.Event

    def page(self, name: str, status: int = 200, /, **values: Any) -> HTMLResponse:
        """A page from its template."""
        return HTMLResponse(self.templates.get_template(name).render(**values), status_code=status)


def console_of(request: Request) -> Console:
    """The console that serves this request."""
    found = request.app.state.console
    if not isinstance(found, Console):
        raise TypeError("app.state.console is not set")
    return found


def annotator_of(request: Request) -> tuple[Invite, AnnotatorSession]:
    """The annotator, from the signed cookie, never from a form."""
    return console_of(request).sessions.annotator(request.cookies.get(ANNOTATOR_COOKIE))


def operator_of(request: Request) -> str:
    """The operator's session id. Unauthenticated if there is none."""
    return console_of(request).sessions.operator(request.cookies.get(OPERATOR_COOKIE))


async def form_of(request: Request, session_id: str) -> dict[str, str]:
    """The fields of a form that this console created for this session. PermissionDenied, CSRF, for other forms."""
    found = await fields_of(request)
    console_of(request).sessions.check_form(session_id, found.pop("csrf", None))
    return found


async def fields_of(request: Request) -> dict[str, str]:
    """The fields of a form, of at most 256 KiB."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_FORM_BYTES:
            raise errors.InvalidArgument("This form is too large; please write less", reason="FORM_TOO_LARGE")
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=1000))
    except ValueError as error:
        raise errors.InvalidArgument("This form is damaged; please reload the page", reason="BAD_FORM") from error


def set_cookie(request: Request, response: Response, name: str, value: str) -> None:
    """Sets a cookie that no script can read and that forms of other sites do not send."""
    console = console_of(request)
    secure = request.url.scheme == "https" or console.settings.public_url.startswith("https:")
    response.set_cookie(
        name, value, max_age=console.sessions.max_age, httponly=True, samesite="lax", secure=secure, path="/"
    )


def go(request: Request, where: str) -> Response:
    """The response to a form: a redirect, or, for our own scripts, its target as JSON."""
    return JSONResponse({"next": where}) if wants_json(request) else RedirectResponse(where, status_code=303)


def wants_json(request: Request) -> bool:
    """Whether a script sent the request."""
    return "application/json" in request.headers.get("accept", "")


async def on_error(request: Request, error: Exception) -> Response:
    """An AccordError as a page, or as JSON for scripts and programs."""
    if not isinstance(error, errors.AccordError):
        raise error
    status = next((code for kind, code in HTTP_STATUS.items() if isinstance(error, kind)), 500)
    if wants_json(request):
        return JSONResponse({"error": error.message, "reason": error.reason}, status_code=status)
    return console_of(request).page("error.html", status, error=error, code=status)
