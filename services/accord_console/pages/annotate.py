"""The annotator's pages."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from accord.errors import AlreadyExists, NotFound
from accord.types import v1 as types_v1
from accord_console.annotation import form_parsing, rendering
from accord_console.auth.invites import Invite
from accord_console.auth.sessions import ANNOTATOR_COOKIE, AnnotatorSession
from accord_console.web import Console, annotator_of, console_of, form_of, go, set_cookie

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ROLE_TITLES = {"user": "Person", "assistant": "Assistant", "system": "Instruction"}


async def show(request: Request) -> Response:
    """The annotator's current task, or a page without a task."""
    console = console_of(request)
    invite, session = annotator_of(request)
    task = await console.desk.take(invite)
    common: dict[str, Any] = {
        "invite": invite,
        "session": session,
        "progress": await console.desk.progress(invite),
        "csrf": console.sessions.form_token(session.session_id),
        "kept": "kept" in request.query_params,
    }
    if task is None:
        return console.page("nothing.html", **common)
    lease = task.lease
    return console.page(
        "annotate.html",
        **common,
        sheet=task,
        slip=console.task_pages.write(task, invite.invite_id),
        lease_seconds=round(console.settings.lease_seconds),
        instructions=rendering.markdown(lease.task.instructions),
        flags=form_parsing.FLAGS,
        turns=[
            (ROLE_TITLES.get(turn.role, turn.role), _text(request, turn.content, f"{lease.lease_id}/prompt/{place}"))
            for place, turn in enumerate(lease.prompt.conversation.messages)
        ],
        answers=[
            (
                letter_of(place),
                _text(request, completion.text, f"{lease.lease_id}/answer/{place}")
                | {"cut_off": completion.finish_reason == types_v1.FINISH_REASON_LENGTH},
            )
            for place, completion in enumerate(task.shown)
        ],
    )


def letter_of(place: int) -> str:
    """A, B, C, ... for the answers of a page; AA after Z."""
    return LETTERS[place] if place < len(LETTERS) else letter_of(place // len(LETTERS) - 1) + LETTERS[place % 26]


def _text(request: Request, text: str, where: str) -> dict[str, object]:
    """A text for the page: rendered, or, if it is too long, its beginning and a link to the full text."""
    most = console_of(request).settings.max_rendered_characters
    if len(text) <= most:
        shown = {"html": rendering.markdown(text), "empty": not text.strip(), "whole": ""}
    else:
        shown = {"html": rendering.plain(text[:most]), "empty": False, "whole": f"/annotate/text/{where}"}
    return {**shown, "characters": len(text), "cut_off": False}


async def whole_text(request: Request) -> Response:
    """The full text of a prompt or answer of the current task."""
    console = console_of(request)
    invite, _ = annotator_of(request)
    task = await console.desk.take(invite)
    wanted = request.path_params
    if task is None or task.lease.lease_id != wanted["lease"]:
        raise NotFound("This is no longer your current task", reason="OLD_PAGE")
    texts = {
        "prompt": [turn.content for turn in task.lease.prompt.conversation.messages],
        "answer": [completion.text for completion in task.shown],
    }.get(wanted["part"], [])
    if wanted["place"] >= len(texts):
        raise NotFound("This task has no such text", reason="UNKNOWN_TEXT")
    return PlainTextResponse(texts[wanted["place"]])


async def answer(request: Request) -> Response:
    """Saves the form's judgement."""
    console, invite, session, form = await _posted(request)
    try:
        session = session.saved(await console.desk.answer(invite, form))
    except AlreadyExists:
        # The task already has a different answer: from a second click on another choice, or from another device.
        return go(request, "/annotate?kept")
    return _next(request, session)


async def skip(request: Request) -> Response:
    """Skips the task."""
    console, invite, session, form = await _posted(request)
    await console.desk.skip(invite, form)
    return _next(request, session)


async def flag(request: Request) -> Response:
    """Reports what is wrong with the task, and skips it."""
    console, invite, session, form = await _posted(request)
    await console.desk.flag(invite, form)
    return _next(request, session)


async def undo(request: Request) -> Response:
    """Retracts the last answer of the session."""
    console, invite, session, form = await _posted(request)
    if session.last:
        await console.desk.undo(invite, session.last, form)
    return _next(request, session.undone())


async def _posted(request: Request) -> tuple[Console, Invite, AnnotatorSession, dict[str, str]]:
    invite, session = annotator_of(request)
    return console_of(request), invite, session, await form_of(request, session.session_id)


def _next(request: Request, session: AnnotatorSession) -> Response:
    response = go(request, "/annotate")
    set_cookie(request, response, ANNOTATOR_COOKIE, console_of(request).sessions.annotator_cookie(session))
    return response


routes = [
    Route("/annotate", show),
    Route("/annotate/answer", answer, methods=["POST"]),
    Route("/annotate/skip", skip, methods=["POST"]),
    Route("/annotate/flag", flag, methods=["POST"]),
    Route("/annotate/undo", undo, methods=["POST"]),
    Route("/annotate/text/{lease}/{part}/{place:int}", whole_text),
]
