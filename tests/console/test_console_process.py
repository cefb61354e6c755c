"""The console as a process, and the commands that talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from tests.support.certificates import make_certificate
from tests.support.command import accord_command, preference_service

from accord import discovery

pytestmark = pytest.mark.process

SECONDS = 60.0


@asynccontextmanager
async def started(state_dir: Path, *flags: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m accord_console` on a free port; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "accord_console", "--state-dir", str(state_dir), "--port", "0", *flags,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def operator_link(process: asyncio.subprocess.Process) -> str:
    """What it prints once it serves."""
    assert process.stdout is not None
    async with asyncio.timeout(SECONDS):
        while line := (await process.stdout.readline()).decode():
            if found := re.match(r"operate: (\S+)", line):
                return found[1]
    raise AssertionError((await process.communicate())[1].decode())


async def test_it_says_how_to_enter_finds_the_services_and_ends_in_order(tmp_path: Path) -> None:
    async with preference_service(tmp_path), started(tmp_path) as process:
        link = await operator_link(process)
        record = discovery.read(tmp_path, "console")
        assert record is not None
        assert (record.pid, record.token) == (process.pid, link.partition("token=")[2])
        assert (tmp_path / "console.json").stat().st_mode & 0o077 == 0

        invited = await accord_command(tmp_path, "console", "invite", "alice", "--queue", "demo/")
        assert invited.code == 0, invited.err
        listed = json.loads((await accord_command(tmp_path, "console", "invites", "--format", "json")).out)
        assert [(row["name"], row["queue"], row["link"]) for row in listed] == [("alice", "demo/", invited.out.strip())]
        async with httpx2.AsyncClient(follow_redirects=True, timeout=SECONDS) as web:
            assert (await web.get(invited.out.strip())).status_code == 200
            assert (await web.get(link)).status_code in (200, 409)  # no controller runs here
            revoked = await accord_command(tmp_path, "console", "revoke", "alice")
            assert (revoked.code, "1 link of alice ended" in revoked.err) == (0, True)
            assert (await web.get(f"http://{record.address}/annotate")).status_code == 403
        unknown = await accord_command(tmp_path, "console", "revoke", "bob")
        assert (unknown.code, "[UNKNOWN_ANNOTATOR]" in unknown.err) == (1, True)
        wrong = await accord_command(tmp_path, "console", "invite", "a b")
        assert (wrong.code, "1 to 64" in wrong.err) == (1, True)

        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), SECONDS) == 0
        assert discovery.read(tmp_path, "console") is None
    nobody = await accord_command(tmp_path, "console", "invite", "alice")
    assert (nobody.code, "[CONSOLE_NOT_RUNNING]" in nobody.err) == (1, True)


async def test_annotators_are_invited_to_a_console_that_serves_tls_and_to_no_other(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, "annotate.test")
    flags = ("--tls-cert", str(cert), "--tls-key", str(key))
    async with preference_service(tmp_path), started(tmp_path, *flags) as process:
        link = await operator_link(process)
        assert link.startswith("https://127.0.0.1:")
        invited = await accord_command(tmp_path, "console", "invite", "alice")
        assert invited.code == 0, invited.err
        assert invited.out.startswith("https://127.0.0.1:")
        trusted = ssl.create_default_context(cafile=cert)
        trusted.check_hostname = False
        async with httpx2.AsyncClient(follow_redirects=True, timeout=SECONDS, verify=trusted) as web:
            assert (await web.get(invited.out.strip())).status_code == 200
        # Whoever serves there with another certificate is not told the operator's token.
        (tmp_path / "other").mkdir()
        other, _ = make_certificate(tmp_path / "other", "annotate.test")
        cert.write_bytes(other.read_bytes())
        refused = await accord_command(tmp_path, "console", "invite", "bob")
        assert (refused.code, "CERTIFICATE_VERIFY_FAILED" in refused.err) == (1, True)


async def test_a_port_in_use_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with started(tmp_path, "--port", str(taken.getsockname()[1])) as process:
            said = (await asyncio.wait_for(process.communicate(), SECONDS))[1].decode()
            assert (process.returncode, "[PORT_IN_USE]" in said) == (1, True)
            assert len(said.strip().splitlines()) == 1


async def test_bad_settings_are_exit_code_2(tmp_path: Path) -> None:
    for flags, reason in (
        (("--host", "0.0.0.0"), "can be reached from other machines"),
        (("--public-url", "annotate.example.org"), "is no address"),
        (("--port", "70000"), "less than or equal to 65535"),
    ):
        async with started(tmp_path, *flags) as process:
            said = (await asyncio.wait_for(process.communicate(), SECONDS))[1].decode()
            assert (process.returncode, reason in said) == (2, True), said
    assert not list(tmp_path.iterdir())


async def test_the_secret_of_a_killed_console_holds_its_links(tmp_path: Path) -> None:
    async with preference_service(tmp_path):
        async with started(tmp_path) as process:
            await operator_link(process)
            token = (await accord_command(tmp_path, "console", "invite", "alice")).out.strip().rpartition("/")[2]
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
        async with started(tmp_path) as process:
            await operator_link(process)
            record = discovery.read(tmp_path, "console")
            assert record is not None
            async with httpx2.AsyncClient(follow_redirects=True, timeout=SECONDS) as web:
                assert (await web.get(f"http://{record.address}/i/{token}")).status_code == 200
