"""The annotator's desk over HTTP, without scripts, in front of a real preference service."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from tests.support.console import Site, console_site

from accord.preference import v1 as preference_v1

pytestmark = pytest.mark.process


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with console_site(tmp_path, max_rendered_characters=2000) as found:
        yield found


@pytest.fixture
async def web(site: Site) -> AsyncIterator[httpx2.AsyncClient]:
    """A browser without scripts."""
    async with httpx2.AsyncClient(base_url=site.url, follow_redirects=True, timeout=30) as client:
        yield client


def fields(html: str) -> dict[str, str]:
    """The hidden fields of the sheet's form."""
    return {name: re.search(rf'name="{name}" value="([^"]*)"', html)[1] for name in ("csrf", "slip")}  # type: ignore[index]


def order(html: str, *texts: str) -> list[str]:
    """The texts in the order of the page."""
    assert all(text in html for text in texts)
    return sorted(texts, key=html.index)


async def test_a_pair_is_judged_by_what_the_page_showed(site: Site, web: httpx2.AsyncClient) -> None:
    await site.task(["the good one", "the bad one"], "Which?")
    page = (await web.get(site.link("ann"))).text
    shown = order(page, "the good one", "the bad one")
    choice = str(shown.index("the good one"))
    done = await web.post("/annotate/answer", data={**fields(page), "choice": choice, "comment": " clearer "})
    assert "That is all for now" in done.text
    (record,) = await site.saved()
    texts = {one.completion_id: one.text for one in record.completions}
    assert texts[record.feedback.comparison.chosen_id] == "the good one"
    assert record.feedback.annotator == preference_v1.Annotator(
        annotator_id="ann", kind=preference_v1.ANNOTATOR_KIND_HUMAN
    )
    (found,) = [one async for one in site.client.preferences.feedback()]
    assert found.comment == "clearer"
    kept = json.loads((site.console.settings.folder / "orders.jsonl").read_text())
    assert (kept["feedback_id"], [texts[name] for name in kept["shown"]]) == (found.feedback_id, shown)


async def test_an_answer_that_was_cut_off_says_so_and_the_other_does_not(site: Site, web: httpx2.AsyncClient) -> None:
    await site.task(["a whole answer", "an answer that"], cut_off=["an answer that"])
    page = (await web.get(site.link("ann"))).text
    cut = [article for article in page.split("<article")[1:] if "cut off at its limit" in article]
    assert len(cut) == 1
    assert "an answer that" in cut[0]


async def test_a_reload_keeps_the_task_its_order_and_its_time(site: Site, web: httpx2.AsyncClient) -> None:
    for _ in range(3):
        await site.task(["first answer", "second answer"])
    first = (await web.get(site.link("ann"))).text
    slip = fields(first)["slip"]
    for _ in range(3):
        again = (await web.get("/annotate")).text
        assert fields(again)["slip"] == slip
        assert order(again, "first answer", "second answer") == order(first, "first answer", "second answer")


async def test_the_order_is_blind_from_one_person_to_the_next(site: Site) -> None:
    await site.task(["first answer", "second answer"], redundancy=12)
    orders = set()
    for number in range(12):
        async with httpx2.AsyncClient(base_url=site.url, follow_redirects=True, timeout=30) as web:
            page = (await web.get(site.link(f"ann{number}"))).text
            orders.add(tuple(order(page, "first answer", "second answer")))
    assert len(orders) == 2  # one chance in 2,048 to fail though all is well


async def test_a_form_sent_twice_is_one_answer_and_the_first_of_two_holds(site: Site, web: httpx2.AsyncClient) -> None:
    for number in range(2):
        await site.task([f"one {number}", f"two {number}"])
    page = (await web.get(site.link("ann"))).text
    form = {**fields(page), "choice": "0"}
    replies = await asyncio.gather(*(web.post("/annotate/answer", data=form) for _ in range(4)))
    assert {reply.status_code for reply in replies} == {200}
    (record,) = await site.saved()
    kept = record.feedback.comparison.chosen_id
    other = await web.post("/annotate/answer", data={**form, "choice": "1"})
    assert "the first answer is kept" in other.text
    assert [one.feedback.comparison.chosen_id for one in await site.saved()] == [kept]
    # The next task is on the desk once, whoever asked how often.
    assert len({fields(reply.text)["slip"] for reply in [*replies, other]}) == 1


async def test_a_ranking_with_ties_is_kept_whole_and_half_a_one_is_refused(site: Site, web: httpx2.AsyncClient) -> None:
    names = ["alpha", "beta", "gamma", "delta"]
    await site.task(names, kind="ranking")
    page = (await web.get(site.link("ann"))).text
    shown = order(page, *names)
    place = {name: str(shown.index(name)) for name in names}
    half = await web.post("/annotate/answer", data={**fields(page), "ranks": "0 1"})
    assert (half.status_code, "every answer in its place" in half.text) == (400, True)
    assert await site.saved() == []
    ranks = f"{place['gamma']} {place['alpha']}={place['delta']} {place['beta']}"
    assert (await web.post("/annotate/answer", data={**fields(page), "ranks": ranks})).status_code == 200
    (record,) = await site.saved()
    texts = {one.completion_id: one.text for one in record.completions}
    said = [sorted(texts[name] for name in rank.completion_ids) for rank in record.feedback.ranking.ranks]
    assert said == [["gamma"], ["alpha", "delta"], ["beta"]]


async def test_a_rating_and_criteria_are_kept(site: Site, web: httpx2.AsyncClient) -> None:
    criteria = [
        preference_v1.Criterion(name="helpful", description="Does it help?"),
        preference_v1.Criterion(name="sure", min=0, max=1),
    ]
    await site.task(["an answer"], kind="rating", criteria=criteria)
    page = (await web.get(site.link("ann"))).text
    assert "Does it help?" in page
    data = {**fields(page), "value": "4", "rate-0-0": "2", "rate-0-1": "0"}
    assert (await web.post("/annotate/answer", data=data)).status_code == 200
    (found,) = [one async for one in site.client.preferences.feedback()]
    assert found.rating.value == 4
    assert {(one.criterion, one.value, one.max) for one in found.criteria} == {("helpful", 2, 5), ("sure", 0, 1)}


async def test_undo_brings_the_last_task_back_and_nothing_is_left_of_the_answer(
    site: Site, web: httpx2.AsyncClient
) -> None:
    for number in range(2):
        await site.task([f"one {number}", f"two {number}"])
    page = (await web.get(site.link("ann"))).text
    first = re.search(r"one \d", page)[0]  # type: ignore[index]
    after = (await web.post("/annotate/answer", data={**fields(page), "choice": "0"})).text
    assert first not in after
    assert len(await site.saved()) == 1
    undone = (await web.post("/annotate/undo", data=fields(after))).text
    assert first in undone
    assert await site.saved() == []
    assert 'id="answered">0<' in undone
    # Once: the one before is not taken back by a second press.
    assert first in (await web.post("/annotate/undo", data=fields(undone))).text
    await web.post("/annotate/answer", data={**fields(undone), "choice": "1"})
    assert len(await site.saved()) == 1


async def test_skipped_comes_last_and_flagged_comes_no_more(site: Site, web: httpx2.AsyncClient) -> None:
    for number in range(2):
        await site.task([f"one {number}", f"two {number}"], redundancy=2)
    page = (await web.get(site.link("ann"))).text
    second = (await web.post("/annotate/skip", data=fields(page))).text
    assert "one 1" in second
    unclear = await web.post("/annotate/flag", data=fields(second))
    assert (unclear.status_code, "say what is wrong" in unclear.text) == (400, True)
    left = await web.post("/annotate/flag", data={**fields(second), "reason": "broken", "comment": "cut off"})
    assert "one 0" in left.text
    (flag,) = [one async for one in site.client.preferences.flags()]
    assert (flag.reason, flag.comment, flag.annotator.annotator_id) == (
        preference_v1.FLAG_REASON_BROKEN,
        "cut off",
        "ann",
    )
    done = await web.post("/annotate/answer", data={**fields(left.text), "choice": "tie"})
    assert "That is all for now" in done.text
    (record,) = await site.saved()
    assert record.feedback.comparison.tie


async def test_an_answer_after_the_lease_ended_is_kept_and_marked_late(tmp_path: Path) -> None:
    async with console_site(tmp_path, lease_seconds=0.2) as site:
        await site.task(["one", "two"])
        async with httpx2.AsyncClient(base_url=site.url, follow_redirects=True, timeout=30) as web:
            page = (await web.get(site.link("ann"))).text
            await asyncio.sleep(0.3)
            assert (await web.post("/annotate/answer", data={**fields(page), "choice": "0"})).status_code == 200
        (record,) = await site.saved()
        assert record.feedback.late


async def test_an_invite_for_a_queue_gives_its_tasks_only(site: Site, web: httpx2.AsyncClient) -> None:
    await site.task(["one", "two"], queue="other")
    await site.task(["three", "four"], queue="mine")
    page = (await web.get(site.link("ann", queue="mine"))).text
    assert "three" in page
    done = await web.post("/annotate/answer", data={**fields(page), "choice": "0"})
    assert "That is all for now" in done.text


async def test_who_is_excluded_is_told_and_their_answer_is_not_taken(site: Site, web: httpx2.AsyncClient) -> None:
    await site.task(["one", "two"])
    page = (await web.get(site.link("ann"))).text
    ann = preference_v1.Annotator(annotator_id="ann", kind=preference_v1.ANNOTATOR_KIND_HUMAN)
    await site.client.annotators.exclude(ann)
    refused = await web.post("/annotate/answer", data={**fields(page), "choice": "0"})
    assert (refused.status_code, "ANNOTATOR_EXCLUDED" in refused.text) == (403, True)
    assert (await web.get("/annotate")).status_code == 403
    assert await site.saved() == []


async def test_markup_in_prompts_and_answers_is_text(site: Site, web: httpx2.AsyncClient) -> None:
    attack = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    await site.task([attack, f"**{attack}**"], attack)
    page = (await web.get(site.link("ann"))).text
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 3
    assert "<img src=x" not in page


async def test_a_long_answer_is_cut_and_there_as_a_whole(site: Site, web: httpx2.AsyncClient) -> None:
    long = "word <b> " * 100_000
    await site.task([long, ""])
    page = await web.get(site.link("ann"))
    assert len(page.text) < 50_000
    assert "(an empty answer)" in page.text
    assert "900,000 characters" in page.text
    where = re.search(r'href="(/annotate/text/[^"]+)"', page.text)[1]  # type: ignore[index]
    whole = await web.get(where)
    assert whole.text == long
    assert whole.headers["content-type"].startswith("text/plain")
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert (await web.get(where[:-1] + "7")).status_code == 404


async def test_a_form_that_is_too_large_or_no_form_is_refused(site: Site, web: httpx2.AsyncClient) -> None:
    await site.task(["one", "two"])
    page = (await web.get(site.link("ann"))).text
    large = await web.post("/annotate/answer", data={**fields(page), "choice": "0", "comment": "x" * 300_000})
    assert (large.status_code, "too large" in large.text) == (400, True)
    assert (await web.post("/annotate/answer", content=b"\xff\xfe")).status_code == 400
    assert (await web.post("/annotate/answer", data=fields(page))).status_code == 400
    assert await site.saved() == []


async def test_a_preference_service_that_is_away_is_told_and_nothing_is_lost(
    site: Site, web: httpx2.AsyncClient, tmp_path: Path
) -> None:
    async with console_site(tmp_path / "other", preference_address="127.0.0.1:1", call_seconds=0.5) as away:
        reply = await web.get(away.link("ann"))
        assert reply.status_code in (503, 504)
        form = {"csrf": away.console.sessions.form_token("x")}
        said = await web.post(f"{away.url}/annotate/answer", data=form, headers={"Accept": "application/json"})
        assert said.json()["reason"] == "CSRF"
