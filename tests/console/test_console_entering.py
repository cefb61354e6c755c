"""Who may come in: invites, their end, forms of other sites, the operator's token."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from tests.support.console import Site, console_site

from accord.errors import DataLoss, InvalidArgument
from accord_console.app import build
from accord_console.auth.invites import Invites
from accord_console.settings import ConsoleSettings

pytestmark = pytest.mark.process


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with console_site(tmp_path) as found:
        yield found


@pytest.fixture
async def web(site: Site) -> AsyncIterator[httpx2.AsyncClient]:
    """A browser without scripts."""
    async with httpx2.AsyncClient(base_url=site.url, follow_redirects=True, timeout=30) as client:
        yield client


def field(html: str, name: str) -> str:
    """The value of a hidden field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', html)
    assert found, f"no field {name}"
    return found[1]


async def test_an_invite_link_opens_the_desk_and_nothing_else_does(site: Site, web: httpx2.AsyncClient) -> None:
    assert (await web.get("/annotate")).status_code == 401
    assert (await web.get("/i/forged")).status_code == 403
    link = site.link("ann")
    # Not the last letter: some of its bits are none of the signature's.
    assert (await web.get(link[:-2] + ("a" if link[-2] != "a" else "b") + link[-1])).status_code == 403
    page = await web.get(link)
    assert page.status_code == 200
    assert "ann" in page.text
    assert "/annotate" in str(page.url)
    # The annotator is no operator.
    for path in ("/runs", "/models", "/quality", "/people"):
        assert (await web.get(path)).status_code == 401


async def test_a_revoked_invite_is_refused_and_its_open_session_ends(site: Site, web: httpx2.AsyncClient) -> None:
    link = site.link("ann")
    await site.task(["one", "two"])
    page = await web.get(link)
    assert "Which answer is better" in page.text
    assert site.console.invites.revoke("ann") == 1
    for reply in (await web.get("/annotate"), await web.get(link)):
        assert reply.status_code == 403
        assert "was revoked" in reply.text
    form = {"csrf": field(page.text, "csrf"), "slip": field(page.text, "slip"), "choice": "0"}
    assert (await web.post("/annotate/answer", data=form)).status_code == 403
    assert await site.saved() == []
    # Another link of the same person, made after, opens again.
    assert (await web.get(site.link("ann"))).status_code == 200


async def test_invites_outlast_the_console_and_a_damaged_file_is_told(tmp_path: Path) -> None:
    settings = ConsoleSettings(state_dir=tmp_path)
    first = build(settings)
    held = first.invites.invite("ann")
    gone = first.invites.invite("bob")
    first.invites.revoke("bob")
    second = build(settings)
    assert second.sessions.enter(first.sessions.link_token(held)).invite_id == held.invite_id
    assert second.invites.holds(gone.invite_id) is None
    assert (settings.folder / "secret").stat().st_mode & 0o077 == 0
    (settings.folder / "invites.json").write_text("{")
    with pytest.raises(DataLoss, match="damaged"):
        build(settings)


@pytest.mark.parametrize("name", ["", "a b", "<b>", "x" * 65, "../x", "-x"])
def test_a_name_that_would_not_do_as_an_id_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="1 to 64"):
        Invites(tmp_path / "invites.json").invite(name)
    assert not list(tmp_path.iterdir())


async def test_forms_of_other_sites_and_sessions_are_refused(site: Site, web: httpx2.AsyncClient) -> None:
    await site.task(["one", "two"])
    page = (await web.get(site.link("ann"))).text
    form = {"slip": field(page, "slip"), "choice": "0"}
    stranger = site.console.sessions.form_token("another session")
    for token in ({}, {"csrf": ""}, {"csrf": "forged"}, {"csrf": stranger}):
        for action in ("answer", "skip", "flag", "undo"):
            reply = await web.post(f"/annotate/{action}", data={**form, **token})
            assert (reply.status_code, "CSRF" in reply.text) == (403, True)
    assert await site.saved() == []
    cookie = next(iter(web.cookies.jar))
    assert cookie.has_nonstandard_attr("HttpOnly")
    assert cookie.get_nonstandard_attr("SameSite") == "lax"


async def test_who_answers_is_what_the_invite_says_whatever_the_form_says(site: Site, web: httpx2.AsyncClient) -> None:
    await site.task(["one", "two"])
    page = (await web.get(site.link("ann"))).text
    form = {"csrf": field(page, "csrf"), "slip": field(page, "slip"), "choice": "0"}
    await web.post("/annotate/answer", data={**form, "annotator": "eve", "annotator_id": "eve", "name": "eve"})
    assert [record.feedback.annotator.annotator_id for record in await site.saved()] == ["ann"]


async def test_a_slip_of_one_person_is_of_no_use_to_another(site: Site, web: httpx2.AsyncClient) -> None:
    await site.task(["one", "two"])
    page = (await web.get(site.link("ann"))).text
    slip = field(page, "slip")
    other = (await web.get(site.link("eve"))).text
    form = {"csrf": field(other, "csrf"), "slip": slip, "choice": "0"}
    reply = await web.post("/annotate/answer", data=form)
    assert (reply.status_code, "OLD_PAGE" in reply.text) == (409, True)
    form["slip"] = slip[:-2] + "xx"
    assert (await web.post("/annotate/answer", data=form)).status_code == 409
    assert await site.saved() == []


async def test_the_operators_pages_need_the_operators_token(site: Site, web: httpx2.AsyncClient) -> None:
    assert (await web.get("/operator?token=wrong")).status_code == 403
    assert (await web.get("/operator")).status_code == 403
    assert (await web.get("/people")).status_code == 401
    await web.get(site.operator_link, follow_redirects=False)
    page = await web.get("/people")
    assert page.status_code == 200
    reply = await web.post("/people/invite", data={"csrf": field(page.text, "csrf"), "name": "ann"})
    assert "ann" in reply.text
    assert (await web.post("/people/invite", data={"name": "eve"})).status_code == 403
    assert [invite.annotator_id for invite in site.console.invites.all()] == ["ann"]


async def test_programs_need_the_token_too(site: Site, web: httpx2.AsyncClient) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": site.console.sessions.operator_token}):
        assert (await web.post("/api/invite", data={"name": "eve"}, headers=headers)).status_code == 401
    headers = {"Authorization": f"Bearer {site.console.sessions.operator_token}", "Accept": "application/json"}
    made = (await web.post("/api/invite", data={"name": "ann", "queue": "q"}, headers=headers)).json()
    assert made["link"].startswith(f"{site.url}/i/")
    assert (await web.get("/api/invites", headers=headers)).json()["invites"][0]["queue"] == "q"
    assert (await web.post("/api/revoke", data={"name": "ann"}, headers=headers)).json() == {"revoked": 1}
    assert (await web.post("/api/revoke", data={"name": "bob"}, headers=headers)).status_code == 404
    wrong = await web.post("/api/invite", data={"name": "<b>"}, headers=headers)
    assert (wrong.status_code, wrong.json()["reason"]) == (400, "INVALID_ARGUMENT")


async def test_every_answer_forbids_foreign_and_inline_scripts(site: Site, web: httpx2.AsyncClient) -> None:
    await site.task(["one", "two"])
    await web.get(site.link("ann"))
    for path in ("/annotate", "/", "/nowhere", "/healthz", "/static/annotate.js"):
        policy = (await web.get(path)).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
    for path in ("/annotate", "/"):
        html = (await web.get(path)).text
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", html)


async def test_health_says_what_is_served_and_that_it_drains(site: Site, web: httpx2.AsyncClient) -> None:
    reply = await web.get("/healthz")
    assert (reply.status_code, reply.json()) == (200, {"status": "serving", "services": ["preference"]})
    site.console.draining.set()
    assert (await web.get("/healthz")).status_code == 503
