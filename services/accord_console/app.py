"""Assembles the console: its parts, pages and headers."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from accord.errors import AccordError
from accord.report import text
from accord_console.annotation.desk import Desk
from accord_console.annotation.presentation_log import PresentationLog
from accord_console.annotation.task_page import TaskPages
from accord_console.auth.headers import SecurityHeaders
from accord_console.auth.invites import Invites
from accord_console.auth.secret import load_secret
from accord_console.auth.sessions import Sessions
from accord_console.comparisons.comparisons import Comparisons
from accord_console.comparisons.runner import ComparisonRunner
from accord_console.connections import Connections
from accord_console.pages import annotate, entering, models, people, quality, runs
from accord_console.settings import ConsoleSettings
from accord_console.web import Console, on_error

HERE = Path(__file__).parent


def build(settings: ConsoleSettings) -> Console:
    """The console's parts. DataLoss if its secret or its invites are damaged."""
    secret = load_secret(settings.folder)
    invites = Invites(settings.folder / "invites.json")
    connections = Connections(settings)
    task_pages = TaskPages(secret)
    comparisons = Comparisons(settings.folder / "comparisons")
    comparisons.interrupt()
    return Console(
        settings=settings,
        templates=templates(),
        connections=connections,
        invites=invites,
        sessions=Sessions(secret, invites, secrets.token_urlsafe(24), settings.session_days),
        task_pages=task_pages,
        desk=Desk(
            partial(connections.client, "preference"),
            task_pages,
            PresentationLog(settings.folder / "orders.jsonl"),
            settings.lease_seconds,
            settings.call_seconds,
        ),
        comparisons=comparisons,
        comparison_runner=ComparisonRunner(connections.client, comparisons),
        draining=asyncio.Event(),
    )


def application(console: Console) -> Starlette:
    """The web application of a console."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await console.comparison_runner.close()
            await console.connections.close()

    app = Starlette(
        routes=[
            *entering.routes,
            *annotate.routes,
            *runs.routes,
            *models.routes,
            *quality.routes,
            *people.routes,
            Mount("/static", StaticFiles(directory=HERE / "static"), name="static"),
        ],
        middleware=[Middleware(SecurityHeaders)],
        exception_handlers={AccordError: on_error},
        lifespan=lifespan,
    )
    app.state.console = console
    return app


def templates() -> Environment:
    """The templates. Everything they print is escaped, except output of `rendering`; an unknown name is an error."""
    found = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    marks = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:10] for path in (HERE / "static").iterdir()}
    found.globals["static"] = lambda name: f"/static/{name}?{marks[name]}"
    found.globals["clock"] = text.clock
    found.filters |= {"duration": text.duration, "figure": text.number, "percent": text.percent}
    return found
