"""Entry points: invite links, the operator's link, health."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from accord.errors import AccordError
from accord_console.auth.sessions import ANNOTATOR_COOKIE, OPERATOR_COOKIE
from accord_console.web import annotator_of, console_of, form_of, operator_of, set_cookie


async def home(request: Request) -> Response:
    """Redirects operators and annotators to their pages; explains the console to others."""
    for who, where in ((operator_of, "/runs"), (annotator_of, "/annotate")):
        try:
            who(request)
        except AccordError:
            continue
        return RedirectResponse(where, status_code=303)
    return console_of(request).page("welcome.html", 401)


async def invite(request: Request) -> Response:
    """An invite link: starts a session."""
    console = console_of(request)
    session = console.sessions.enter(request.path_params["token"])
    response = RedirectResponse("/annotate", status_code=303)
    set_cookie(request, response, ANNOTATOR_COOKIE, console.sessions.annotator_cookie(session))
    return response


async def operator(request: Request) -> Response:
    """The operator's link, as the console printed it."""
    cookie = console_of(request).sessions.enter_operator(request.query_params.get("token", ""))
    response = RedirectResponse("/runs", status_code=303)
    set_cookie(request, response, OPERATOR_COOKIE, cookie)
    return response


async def leave(request: Request) -> Response:
    """Ends the annotator's session on this device."""
    _, session = annotator_of(request)
    await form_of(request, session.session_id)
    response = RedirectResponse("/", status_code=303)
    response.delete_cookie(ANNOTATOR_COOKIE, path="/")
    return response


async def health(request: Request) -> Response:
    """For probes: 200 and the known services while serving, 503 while draining."""
    console = console_of(request)
    draining = console.draining.is_set()
    body = {"status": "draining" if draining else "serving", "services": sorted(console.connections.addresses())}
    return JSONResponse(body, status_code=503 if draining else 200)


routes = [
    Route("/", home),
    Route("/i/{token}", invite),
    Route("/operator", operator),
    Route("/leave", leave, methods=["POST"]),
    Route("/healthz", health),
]
