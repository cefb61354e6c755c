"""The operator's pages: a real run of the whole loop as it goes, a comparison of its policies, the quality of data."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from playwright.async_api import Page, expect
from tests.browser.conftest import PATIENCE_MS, Open, barriers, picture
from tests.support.console import Site, console_site
from tests.support.loop import controller, tiny_run, write_prompts

import accord
from accord.preference import v1 as preference_v1
from accord_console.serving import serving
from accord_console.settings import ConsoleSettings

pytestmark = pytest.mark.system

DAY = 86_400.0
# The loop runs in four processes beside the browser.
LOOP_MS = 300_000


@pytest.mark.timeout(900)
async def test_a_run_live_its_pause_its_end_and_a_comparison_of_its_policies(
    tiny_folder: Path, tmp_path: Path, open_page: Open
) -> None:
    state_dir = tmp_path / "state"
    run = tiny_run(
        "demo", tiny_folder, write_prompts(tmp_path / "prompts.jsonl"), policy__steps=12, evaluate__min_gain=-100.0
    )
    async with (
        controller(state_dir) as (_, client),
        serving(ConsoleSettings(state_dir=state_dir, port=0, drain_seconds=2)) as (url, console),
    ):
        await client.runs.create(run)
        page = await open_page(f"{url}/operator?token={console.sessions.operator_token}", path="/runs/demo")
        await expect(page.locator("#run")).to_have_attribute("data-live", "live", timeout=LOOP_MS)
        # Curves and events come without a reload: a mark on the page is still there afterwards.
        await page.evaluate("window.mark = 1")
        await expect(page.locator("[data-chart=reward] path.line").first).to_be_attached(timeout=LOOP_MS)
        before = await page.locator("[data-chart=reward] path.line").first.get_attribute("d")
        await expect(page.locator("[data-chart=reward] path.line").first).not_to_have_attribute("d", before or "")
        assert await page.evaluate("window.mark") == 1

        await page.get_by_role("button", name="Pause").click()
        await expect(page.locator("#status .state")).to_have_text("paused", timeout=LOOP_MS)
        await page.get_by_role("button", name="Resume").click()
        await expect(page.locator("#status .state")).to_have_text("succeeded", timeout=LOOP_MS)
        await expect(page.locator("#iterations tbody tr")).to_have_count(3)
        # What each iteration used, by stage: processes of their own, so every figure is somebody's.
        used = await page.locator("#used tbody tr").all_inner_texts()
        assert [row.split()[:2] for row in used] == [["base", "CPU"], ["1", "CPU"], ["2", "CPU"]]
        assert all(float(row.split()[-1]) > 0.1 for row in used)
        assert await page.locator(".gate").all_inner_texts() == ["promoted", "promoted"]
        assert await page.locator(".side article").count() >= 3
        for chart in ("heldout", "reward", "kl", "lengths", "accuracy", "throughput"):
            assert await page.locator(f"[data-chart={chart}] path.line").count(), chart
        assert await page.locator(".stages .done").count() == 5
        assert await barriers(page) == []
        await page.set_viewport_size({"width": 1280, "height": 1420})
        await picture(page, "console-run")
        await page.set_viewport_size({"width": 390, "height": 844})
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        await page.set_viewport_size({"width": 1280, "height": 820})

        await page.goto(f"{url}/models/demo-2")
        made = await page.locator(".lineage li > strong").all_inner_texts()
        assert made == ["demo-2", "demo-1", "base model"]
        await page.goto(f"{url}/models")
        await compare(page, client)


async def compare(page: Page, client: accord.Client) -> None:
    """Two people judge the base model against the trained one, and the page says how sure that is."""
    assert await page.locator("#models tbody tr").count() == 3
    await page.locator("select[name=first]").select_option("demo-2")
    (base,) = [model.name async for model in client.models.list() if model.iteration == 0]
    await page.locator("select[name=second]").select_option(base)
    await page.locator("input[name=prompts]").fill("8")
    await page.locator("input[name=redundancy]").fill("2")
    await page.locator("input[name=max_new_tokens]").fill("12")
    async with page.expect_navigation():
        await page.get_by_role("button", name="Compare").click()
    for _ in range(600):
        row = await page.locator("#comparisons tbody tr").inner_text()
        if "people judge" in row:
            break
        assert "failed" not in row, row
        await page.wait_for_timeout(500)
        await page.reload()
    addresses = await client.runs.ensure_services(["preference"])
    async with accord.Client(preference=addresses["preference"]) as services:
        verdicts = await judge_longer(services, "compare/")
    await page.reload()
    row = await page.locator("#comparisons tbody tr").inner_text()
    wins, losses = row.split("\t")[3].split(",")[0].split(":")
    assert verdicts > 0
    assert int(wins) + int(losses) == verdicts
    assert "done" in row
    await expect(page.locator("#comparisons svg.interval")).to_be_visible()
    await page.set_viewport_size({"width": 1280, "height": 1120})
    assert await barriers(page) == []
    await picture(page, "console-models")
    await page.set_viewport_size({"width": 390, "height": 844})
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def judge_longer(client: accord.Client, queue: str) -> int:
    """Two people take the longer answer, always; returns how many verdicts that gave."""
    verdicts = 0
    for name in ("alice", "bob"):
        who = preference_v1.Annotator(annotator_id=name, kind=preference_v1.ANNOTATOR_KIND_HUMAN)
        while (lease := await client.preferences.lease_task(who, queue=queue)) is not None:
            longer, shorter = sorted(lease.completions, key=lambda one: -len(one.text))
            feedback = preference_v1.Feedback(prompt_id=lease.task.prompt_id, annotator=who, task_id=lease.task.task_id)
            feedback.comparison.chosen_id, feedback.comparison.rejected_id = longer.completion_id, shorter.completion_id
            await client.preferences.submit(feedback, lease_id=lease.lease_id)
            verdicts += 1
    return verdicts


async def test_quality_and_the_exclusion_of_who_guesses(tmp_path: Path, open_page: Open) -> None:
    now = [1_790_000_000.0]
    async with console_site(tmp_path, clock=lambda: now[0]) as site:
        await five_days(site, now)
        page = await open_page(site.operator_link, path="/quality")
        assert float(await page.locator(".figures dd").first.inner_text()) > 0.2
        guesser = page.locator("tr", has_text="mallory")
        await expect(guesser.locator(".tag", has_text="too fast")).to_be_visible()
        # Each against the others, against what is known, and against themselves of before.
        columns = await page.locator("thead th").all_inner_texts()
        cells = {}
        for row in await page.locator("tbody tr").all():
            found = await row.locator("td").all_inner_texts()
            cells[found[0].split()[0]] = dict(zip(columns, found, strict=True))
        assert all("of 5" in cells[name]["gold"] for name in ("alice", "bob", "carol", "dave", "mallory"))
        assert float(cells["carol"]["drift"].replace("−", "-")) < 0
        assert cells["alice"]["reliability"] > cells["mallory"]["reliability"]
        assert await page.locator("[data-series] path.line").count() == 4
        await page.set_viewport_size({"width": 1280, "height": 1000})
        await picture(page, "console-quality")
        await guesser.locator("summary").click()
        await guesser.locator("input[name=reason]").fill("guesses")
        async with page.expect_navigation():
            await guesser.get_by_role("button", name="Exclude").click()
        await expect(page.locator("tr", has_text="mallory").locator(".state")).to_have_text("excluded")
        assert "mallory" not in {one.feedback.annotator.annotator_id for one in await site.saved()}
        page.on("dialog", lambda dialog: dialog.accept())
        leaver = page.locator("tr", has_text="dave")
        await leaver.locator("summary").click()
        async with page.expect_navigation():
            await leaver.get_by_role("button", name="Withdraw").click()
        assert "dave withdrew" in await page.locator("h1").inner_text()


async def five_days(site: Site, now: list[float]) -> None:
    """Three careful people, one who tires and one who guesses fast; each pair is judged by three, and each of them
    judges pairs whose answer is known."""
    draw = random.Random(5)
    people = {"alice": 0.95, "bob": 0.9, "carol": 1.0, "dave": 0.85, "mallory": 0.5}
    for day in range(5):
        now[0] = 1_790_000_000.0 + day * DAY
        people["carol"] = 1.0 if day < 3 else 0.5
        for number in range(19):
            answers = [f"good {day} {number} with a reason", f"bad {day} {number}"]
            known = number == 18
            made = await site.task(answers, redundancy=3, priority=-day, queue="unknown" if known else "pairs")
            if known:
                await gold_like(site, made)
            for name in sorted(people) if known else draw.sample(sorted(people), 3):
                who = preference_v1.Annotator(annotator_id=name, kind=preference_v1.ANNOTATOR_KIND_HUMAN)
                lease = await site.client.preferences.lease_task(who, queue="gold" if known else "pairs")
                if lease is None:
                    continue
                now[0] += draw.uniform(2, 4) if name == "mallory" else draw.uniform(20, 60)
                good, bad = sorted((one for one in lease.completions), key=lambda one: one.text, reverse=True)
                if draw.random() > people[name]:
                    good, bad = bad, good
                task = lease.task
                feedback = preference_v1.Feedback(prompt_id=task.prompt_id, annotator=who, task_id=task.task_id)
                feedback.comparison.chosen_id, feedback.comparison.rejected_id = good.completion_id, bad.completion_id
                await site.client.preferences.submit(feedback, lease_id=lease.lease_id)
        await site.client.preferences.cancel_tasks("unknown")


async def gold_like(site: Site, task: preference_v1.Task) -> None:
    """A gold task of the same answers, of which the first is known to be better."""
    made = preference_v1.Task(
        kind=task.kind, prompt_id=task.prompt_id, completion_ids=task.completion_ids, queue="gold"
    )
    made.gold.comparison.chosen_id, made.gold.comparison.rejected_id = task.completion_ids
    await site.client.preferences.create_tasks([made])


async def test_people_are_invited_annotate_and_are_refused_once_revoked(site: Site, open_page: Open) -> None:
    await site.task(["one", "two"])
    operator = await open_page(site.operator_link, path="/people")
    await operator.locator("input[name=name]").fill("alice")
    async with operator.expect_navigation():
        await operator.get_by_role("button", name="Invite").click()
    link = await operator.locator("input.link").input_value()
    annotator = await open_page(link)
    await expect(annotator.locator("#ask")).to_be_visible()
    async with operator.expect_navigation():
        await operator.get_by_role("button", name="Revoke").click()
    await annotator.keyboard.press("1")
    await annotator.keyboard.press("Enter")
    await expect(annotator.locator("#problem")).to_contain_text("revoked", timeout=PATIENCE_MS)
    assert await site.saved() == []
