"""Invites: the operator's page, and the endpoints for the command line."""

from __future__ import annotations

import hmac
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.responses import Response as Reply
from starlette.routing import Route

from accord.errors import Unauthenticated
from accord_console.auth.invites import Invite
from accord_console.pages.operating import page, posted
from accord_console.web import Console, console_of, fields_of, go, operator_of


async def show(request: Request) -> Reply:
    """All invites with their links."""
    operator_of(request)
    rows = [_shape(request, invite) for invite in console_of(request).invites.all()]
    return page(request, "people.html", "/people", invites=rows)


async def invite(request: Request) -> Reply:
    """Creates an invite."""
    form = await posted(request)
    console_of(request).invites.invite(form.get("name", "").strip(), form.get("queue", "").strip())
    return go(request, "/people")


async def revoke(request: Request) -> Reply:
    """Revokes all invites of a name."""
    form = await posted(request)
    console_of(request).invites.revoke(form.get("name", ""))
    return go(request, "/people")


async def api_list(request: Request) -> Reply:
    """For `accord console invites`."""
    console = _program(request)
    return JSONResponse({"invites": [_shape(request, invite) for invite in console.invites.all()]})


async def api_invite(request: Request) -> Reply:
    """For `accord console invite`."""
    console = _program(request)
    fields = await fields_of(request)
    return JSONResponse(_shape(request, console.invites.invite(fields.get("name", ""), fields.get("queue", ""))))


async def api_revoke(request: Request) -> Reply:
    """For `accord console revoke`."""
    console = _program(request)
    return JSONResponse({"revoked": console.invites.revoke((await fields_of(request)).get("name", ""))})


def _program(request: Request) -> Console:
    """The console, for a program with the operator's token, which only the user who started the console can read."""
    console = console_of(request)
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not hmac.compare_digest(token.encode(), console.sessions.operator_token.encode()):
        raise Unauthenticated("Send the operator's token: Authorization: Bearer TOKEN", reason="BAD_TOKEN")
    return console


def _shape(request: Request, invite: Invite) -> dict[str, Any]:
    console = console_of(request)
    base = console.settings.public_url or str(request.base_url).rstrip("/")
    return {
        "name": invite.annotator_id,
        "queue": invite.queue,
        "created": invite.created,
        "revoked": invite.revoked,
        "link": "" if invite.revoked else f"{base}/i/{console.sessions.link_token(invite)}",
    }


routes = [
    Route("/people", show),
    Route("/people/invite", invite, methods=["POST"]),
    Route("/people/revoke", revoke, methods=["POST"]),
    Route("/api/invites", api_list),
    Route("/api/invite", api_invite, methods=["POST"]),
    Route("/api/revoke", api_revoke, methods=["POST"]),
]
