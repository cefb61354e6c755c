"""The operator's pages in front of a real controller and a real preference service."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from tests.support.console import Site, console_site
from tests.support.controller import add_model, add_run, controller_client, open_store

import accord
from accord.controller import v1 as controller_v1
from accord.preference import v1 as preference_v1

pytestmark = pytest.mark.process

ALICE, BOB, CAROL = (
    preference_v1.Annotator(annotator_id=name, kind=preference_v1.ANNOTATOR_KIND_HUMAN)
    for name in ("alice", "bob", "carol")
)


@asynccontextmanager
async def operated(tmp_path: Path) -> AsyncIterator[tuple[Site, httpx2.AsyncClient, accord.Client]]:
    """A console with a controller that starts nothing; an operator's browser; the client of the controller."""
    async with AsyncExitStack() as stack:
        controller = await stack.enter_async_context(controller_client(tmp_path / "controller"))
        address = controller.addresses["controller"]
        site = await stack.enter_async_context(console_site(tmp_path / "state", controller=address))
        web = httpx2.AsyncClient(base_url=site.url, follow_redirects=True, timeout=30)
        await stack.enter_async_context(web)
        assert (await web.get(site.operator_link)).status_code == 200
        yield site, web, controller


def form(html: str) -> dict[str, str]:
    """The hidden fields of a page's first form."""
    names = re.findall(r'type="hidden" name="(csrf|once|etag)" value="([^"]*)"', html)
    return dict(reversed(names))


async def test_an_operator_swaps_the_engine_of_a_run_and_reads_how_far_it_is(
    demo_run: controller_v1.Run, tmp_path: Path
) -> None:
    async with operated(tmp_path) as (_, web, controller):
        await controller.runs.create(demo_run)
        async for _event in controller.runs.watch("demo", timeout=30):
            continue
        page = (await web.get("/runs/demo")).text
        assert "drawn by <strong>transformers</strong>" in page
        reply = await web.post("/runs/demo/swap-engine", data={**form(page), "engine": "127.0.0.1:1"})
        assert "127.0.0.1:1 is being tried" in reply.text
        (swap,) = (await controller.runs.get("demo")).status.swaps
        assert (swap.state, list(swap.services.addresses)) == (controller_v1.SWAP_STATE_PENDING, ["127.0.0.1:1"])
        # Nothing starts an engine here: that is said, and nothing has changed.
        refused = await web.post("/runs/demo/swap-engine", data={**form(page), "once": "x", "engine": "vllm"})
        assert "This controller starts no services" in refused.text
        assert len((await controller.runs.get("demo")).status.swaps) == 1


async def test_a_run_is_shown_resumed_and_cancelled(demo_run: controller_v1.Run, tmp_path: Path) -> None:
    async with operated(tmp_path) as (_, web, controller):
        assert "No run yet" in (await web.get("/runs")).text
        await controller.runs.create(demo_run)
        async for _event in controller.runs.watch("demo", timeout=30):
            continue
        overview = (await web.get("/runs")).text
        assert "demo" in overview
        assert "failed" in overview
        assert "simulated" in overview
        page = (await web.get("/runs/demo")).text
        assert "--rollout-address" in page  # why it failed
        found = (await web.get("/runs/demo/data")).json()
        assert (found["run_id"], found["state"], found["iterations"]) == ("demo", "failed", [])
        assert found["events"][-1]["kind"] == "failed"

        # What happens after the page was made comes as server-sent events, once each, then the end.
        after = found["sequence"]
        reply = await web.post("/runs/demo/resume", data=form(page))
        assert reply.status_code == 200
        kinds, ids, ended = [], [], False
        async with web.stream("GET", f"/runs/demo/events?after={after}") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            async for line in stream.aiter_lines():
                if line.startswith("id: "):
                    ids.append(int(line[4:]))
                elif line.startswith("data: {") and '"kind"' in line:
                    kinds.append(json.loads(line[6:])["kind"])
                ended = ended or line == "event: end"
        assert (kinds[0], kinds[-1], ended) == ("resumed", "failed", True)
        assert ids == list(range(after + 1, after + 1 + len(kinds)))
        again = await web.get("/runs/demo/events", headers={"Last-Event-ID": str(ids[-2])})
        assert again.text.startswith(f"id: {ids[-1]}\n")

        # A page that is older than the run may not cancel it; a fresh one may, and twice is once.
        assert (await web.post("/runs/demo/cancel", data=form(page))).status_code == 409
        fresh = form((await web.get("/runs/demo")).text)
        for _ in range(2):
            assert (await web.post("/runs/demo/cancel", data=fresh)).status_code == 200
        assert (await controller.runs.get("demo")).status.state == controller_v1.RUN_STATE_CANCELLED
        assert "Resume" not in (await web.get("/runs/demo")).text


async def test_what_does_not_exist_and_forms_without_proof_are_refused(
    demo_run: controller_v1.Run, tmp_path: Path
) -> None:
    async with operated(tmp_path) as (_, web, controller):
        assert (await web.get("/runs/nothing")).status_code == 404
        assert (await web.get("/models/nothing")).status_code == 404
        await controller.runs.create(demo_run)
        for action in ("pause", "resume", "cancel"):
            assert (await web.post(f"/runs/demo/{action}", data={"once": "1"})).status_code == 403
        assert (await web.post("/runs/demo/explode", data=form((await web.get("/runs/demo")).text))).status_code == 404
        assert (await controller.runs.get("demo")).status.state != controller_v1.RUN_STATE_CANCELLED


async def test_models_are_put_in_force_and_rolled_back_and_the_history_is_shown(tmp_path: Path) -> None:
    (tmp_path / "controller").mkdir()
    async with open_store(tmp_path / "controller") as store:
        await add_run(store)
        for iteration in range(2):
            await add_model(store, tmp_path, iteration)
    async with operated(tmp_path) as (_, web, controller):
        page = (await web.get("/models")).text
        assert 'formaction="/models/demo-0/promote"' in page
        assert 'formaction="/models/demo-1/rollback"' in page
        assert (await web.post("/models/demo-0/promote", data={"once": "1"})).status_code == 403
        assert (await controller.models.get("demo")).name == "demo-1"
        for _ in range(2):  # a double click is one
            promoted = await web.post("/models/demo-0/promote", data={**form(page), "reason": "<b>calmer</b>"})
            assert "put in force <strong>demo-0</strong>" in promoted.text
            assert "&lt;b&gt;calmer&lt;/b&gt;" in promoted.text
        assert (await controller.models.get("demo")).name == "demo-0"
        for _ in range(2):
            back = await web.post("/models/demo-0/rollback", data=form(promoted.text))
            assert "rolled back to <strong>demo-1</strong>" in back.text
        assert (await controller.models.get("demo")).name == "demo-1"
        # A page that is older than what is in force rolls nothing back.
        stale = await web.post("/models/demo-0/rollback", data=form(back.text))
        assert (stale.status_code, "MODEL_CHANGED" in stale.text) == (409, True)
        assert (await web.post("/models/demo-0/explode", data=form(back.text))).status_code == 404
        assert len([change async for change in controller.models.changes("demo")]) == 4


async def test_a_stream_of_events_ends_when_the_console_does(demo_run: controller_v1.Run, tmp_path: Path) -> None:
    async with operated(tmp_path) as (site, web, controller):
        await controller.runs.create(demo_run)
        async for _event in controller.runs.watch("demo", timeout=30):
            continue
        paused = asyncio.create_task(web.get("/runs/demo/events?after=0"))
        site.console.draining.set()
        assert (await asyncio.wait_for(paused, 20)).status_code == 200


async def test_quality_shows_annotators_and_they_can_be_excluded_reinstated_and_withdrawn(tmp_path: Path) -> None:
    async with operated(tmp_path) as (site, web, _):
        assert "Nobody has judged yet" in (await web.get("/quality")).text
        await judge(site, 6)
        page = (await web.get("/quality")).text
        for text in ("People", "alice", "bob", "carol", "Krippendorff"):
            assert text in page
        kind = preference_v1.ANNOTATOR_KIND_HUMAN
        who = {**form(page), "annotator": "carol", "kind": str(kind), "reason": "always the first"}
        assert "excluded" in (await web.post("/quality/exclude", data=who)).text
        assert (await site.client.annotators.get(CAROL)).state == preference_v1.ANNOTATOR_STATE_EXCLUDED
        assert {one.feedback.annotator.annotator_id for one in await site.saved()} == {"alice", "bob"}
        again = form((await web.get("/quality")).text)
        assert (await web.post("/quality/reinstate", data={**who, **again})).status_code == 200
        assert (await site.client.annotators.get(CAROL)).state == preference_v1.ANNOTATOR_STATE_ACTIVE
        snapshot = await site.client.preferences.create_snapshot(preference_v1.SNAPSHOT_KIND_PREFERENCES)
        last = form((await web.get("/quality")).text)
        gone = await web.post("/quality/withdraw", data={**who, **last})
        assert "carol withdrew" in gone.text
        assert snapshot.digest in gone.text
        assert {one.feedback.annotator.annotator_id for one in await site.saved()} == {"alice", "bob"}
        refused = await web.post("/quality/reinstate", data={**who, **form((await web.get("/quality")).text)})
        assert (refused.status_code, "ANNOTATOR_WITHDRAWN" in refused.text) == (409, True)


async def judge(site: Site, count: int) -> None:
    """`count` pairs judged by three people; carol says the opposite of alice and bob."""
    for number in range(count):
        task = await site.task([f"good {number}", f"bad {number}"], redundancy=3)
        for who in (ALICE, BOB, CAROL):
            lease = await site.client.preferences.lease_task(who)
            assert lease is not None
            assert lease.task.task_id == task.task_id
            good, bad = task.completion_ids
            chosen, rejected = (bad, good) if who is CAROL else (good, bad)
            feedback = preference_v1.Feedback(prompt_id=task.prompt_id, annotator=who, task_id=task.task_id)
            feedback.comparison.CopyFrom(preference_v1.Comparison(chosen_id=chosen, rejected_id=rejected))
            await site.client.preferences.submit(feedback, lease_id=lease.lease_id)


async def test_flagged_tasks_are_listed_and_resolved(tmp_path: Path) -> None:
    async with operated(tmp_path) as (site, web, _):
        task = await site.task(["one", "two"])
        for who in (ALICE, BOB, CAROL):
            lease = await site.client.preferences.lease_task(who)
            if lease is not None:
                reason = preference_v1.FLAG_REASON_OTHER
                await site.client.preferences.flag_task(lease.lease_id, reason, comment="<b>odd</b>")
        page = (await web.get("/quality")).text
        assert "&lt;b&gt;odd&lt;/b&gt;" in page
        assert "Reopen" in page
        unclear = await web.post("/quality/resolve", data={**form(page), "task": task.task_id})
        assert unclear.status_code == 400
        chosen = {**form(page), "task": task.task_id, "resolution": "cancel"}
        assert "Reopen" not in (await web.post("/quality/resolve", data=chosen)).text
        newest = await anext(site.client.preferences.flags())
        assert newest.task.state == preference_v1.TASK_STATE_CANCELLED
