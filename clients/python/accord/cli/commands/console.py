"""`accord console`: the web console and its invites."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from accord.cli.options import Format, options, run_async

if TYPE_CHECKING:
    import ssl

    from accord.discovery import ServiceRecord

CALL_SECONDS = 10.0
# How long `python -m accord_console` may take to stop.
STOP_SECONDS = 30.0

app = typer.Typer(
    help="Run the web console until Ctrl-C; invite annotators.",
    no_args_is_help=False,
    invoke_without_command=True,
)


@app.callback()
def console(
    context: typer.Context,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 chooses a free one.")
    ] = 8480,
    public_url: Annotated[
        str, typer.Option("--public-url", help="The URL at which annotators reach it (https://host), for invite links.")
    ] = "",
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="TLS certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Key of the certificate (PEM).")] = None,
    allow_insecure: Annotated[
        bool,
        typer.Option("--allow-insecure", help="Allow non-loopback addresses without TLS, for use behind a TLS proxy."),
    ] = False,
) -> None:
    """Run the web console, with the services that it needs, until Ctrl-C."""
    if context.invoked_subcommand is None:
        flags = ["--host", host, "--port", str(port), "--public-url", public_url]
        flags += ["--allow-insecure"] if allow_insecure else []
        flags += ["--tls-cert", str(tls_cert)] if tls_cert else []
        flags += ["--tls-key", str(tls_key)] if tls_key else []
        raise typer.Exit(run_async(_serve(options(context).state_dir, flags)))


@app.command("invite")
def invite(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who is invited; recorded with each judgement.")],
    queue: Annotated[
        str,
        typer.Option(
            "--queue",
            "-q",
            help="Only tasks of this queue, such as `demo/iteration-1`, or of all queues of a run, such as `demo/`.",
        ),
    ] = "",
) -> None:
    """Print a link that lets NAME annotate. Anyone who has the link judges as NAME."""
    print(_call(options(context).state_dir, "/api/invite", {"name": name, "queue": queue})["link"])


@app.command("revoke")
def revoke(
    context: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME", help="The invited person.")]
) -> None:
    """Revoke all links of NAME and the sessions opened with them."""
    from accord.cli.render.output import note

    ended = _call(options(context).state_dir, "/api/revoke", {"name": name})["revoked"]
    note(f"Revoked {ended} {'link' if ended == 1 else 'links'} of {name}.")


@app.command("invites")
def invites(
    context: typer.Context,
    format: Annotated[Format, typer.Option("--format", "-f", help="Output format.")] = Format.table,
) -> None:
    """List invites."""
    from rich.table import Table

    from accord.cli.render.output import out, print_json

    found = _call(options(context).state_dir, "/api/invites")["invites"]
    if format is Format.json:
        print_json(found)
        return
    table = Table("name", "queue", "state", "link")
    for row in found:
        table.add_row(row["name"], row["queue"] or "any", "revoked" if row["revoked"] else "active", row["link"])
    out().print(table)


def _call(state_dir: Path, path: str, fields: dict[str, str] | None = None) -> dict[str, Any]:
    """Calls the console on this machine as its operator."""
    import json
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.parse import urlencode
    from urllib.request import Request, urlopen

    from accord.errors import FailedPrecondition, Unavailable

    record = _running(state_dir)
    headers = {"Authorization": f"Bearer {record.token}", "Accept": "application/json"}
    data = urlencode(fields).encode() if fields is not None else None
    request = Request(f"{record.url}{path}", data=data, headers=headers)
    try:
        with urlopen(request, timeout=CALL_SECONDS, context=_trusting(record.certificate)) as response:
            return dict(json.load(response))
    except HTTPError as error:
        said = json.load(error)
        raise FailedPrecondition(said["error"], reason=said["reason"]) from error
    except (OSError, HTTPException) as error:
        raise Unavailable(
            f"The console at {record.url} does not answer: {error}. Use its People page instead"
        ) from error


def _trusting(certificate: str) -> ssl.SSLContext | None:
    """A context that trusts exactly the certificate of this machine's console, for any host name, because
    this command reaches the console by its address. None without a certificate."""
    import ssl

    if not certificate:
        return None
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    # The file need not contain the authority that signed it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _running(state_dir: Path) -> ServiceRecord:
    from accord import discovery
    from accord.errors import FailedPrecondition

    found = discovery.read(state_dir, "console")
    if found is None:
        raise FailedPrecondition(
            "No console is running. To start it: accord up, or accord console", reason="CONSOLE_NOT_RUNNING"
        )
    return found


async def _serve(state_dir: Path, flags: list[str]) -> int:
    """Runs the services that the console needs, and the console, until Ctrl-C."""
    from accord import discovery
    from accord.cli.local.session import open_session
    from accord.errors import FailedPrecondition

    found = discovery.read(state_dir, "console")
    if found is not None:
        raise FailedPrecondition(
            f"A console is already running at {found.url} (process {found.pid})", reason="CONSOLE_RUNS"
        )
    async with open_session(state_dir) as session:
        await session.client.runs.ensure_services(["preference"])
        return await keep_console(state_dir, flags)


def _private(log: Path) -> BinaryIO:
    """A log that only its owner can read: the console prints the operator's link to it."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.fchmod(descriptor, 0o600)  # also if the file existed
    return os.fdopen(descriptor, "ab")


async def keep_console(state_dir: Path, flags: list[str], log: Path | None = None) -> int:
    """Runs `python -m accord_console` until it exits, and returns its exit code. Stops it gracefully when cancelled.
    Its output goes to `log`, or to the output of this command."""
    import asyncio
    import contextlib
    import sys

    with contextlib.ExitStack() as stack:
        output = stack.enter_context(_private(log)) if log is not None else None
        # A separate session: Ctrl-C in the terminal reaches only this command, which stops the console gracefully.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "accord_console", "--state-dir", str(state_dir), *flags,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
