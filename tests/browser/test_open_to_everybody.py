"""The pages are open to everybody: read aloud, by keyboard, in the dark, on a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Page
from tests.browser.conftest import Open, barriers
from tests.support.console import Site, console_site

from accord.preference import v1 as preference_v1

pytestmark = pytest.mark.system

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 1}
WAYS = {"light": {}, "dark": {"color_scheme": "dark"}, "phone": PHONE}
CRITERIA = [
    preference_v1.Criterion(name="helpful", description="Does it answer what was asked?"),
    preference_v1.Criterion(name="share of facts", min=0, max=100),
]
ANSWER = "A **list**:\n\n- one\n- `two`\n\n```python\n# three\nprint(3, 'x')\n```\n\n| a | b |\n|--|--|\n| 1 | 2 |\n"


async def fits(page: Page) -> bool:
    """Whether nothing must be scrolled sideways but what scrolls in itself."""
    return bool(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


@pytest.mark.parametrize("way", WAYS)
async def test_annotators_pages_keep_nobody_out(site: Site, open_page: Open, way: str) -> None:
    for kind, answers in (("comparison", [ANSWER, "B"]), ("ranking", [ANSWER, "B", "C"]), ("rating", [ANSWER])):
        await site.task(answers, kind=kind, criteria=CRITERIA, queue=kind, instructions="Read *all* of it.")
    for kind in ("comparison", "ranking", "rating", "empty"):
        page = await open_page(site.link("alice", kind), **WAYS[way])
        if kind != "empty":
            await page.locator("#comment-toggle").click()
            await page.locator("#flag-toggle").click()
        assert await barriers(page) == [], kind
        assert await fits(page), kind


@pytest.mark.parametrize("way", WAYS)
async def test_operators_pages_keep_nobody_out(tmp_path: Path, open_page: Open, way: str) -> None:
    async with console_site(tmp_path) as site:
        await site.task([ANSWER, "B"], redundancy=2)
        for name in ("alice", "bob"):
            who = preference_v1.Annotator(annotator_id=name, kind=preference_v1.ANNOTATOR_KIND_HUMAN)
            lease = await site.client.preferences.lease_task(who)
            assert lease is not None
            if name == "alice":
                await site.client.preferences.flag_task(lease.lease_id, preference_v1.FLAG_REASON_UNCLEAR, comment="?")
                continue
            first, second = lease.completions
            feedback = preference_v1.Feedback(prompt_id=lease.task.prompt_id, annotator=who, task_id=lease.task.task_id)
            feedback.comparison.chosen_id, feedback.comparison.rejected_id = first.completion_id, second.completion_id
            await site.client.preferences.submit(feedback, lease_id=lease.lease_id)
        site.link("alice")
        for path in ("/people", "/quality"):
            page = await open_page(site.operator_link, path=path, **WAYS[way])
            assert await barriers(page) == [], path
            assert await fits(page), path


async def test_what_has_the_focus_is_seen(site: Site, open_page: Open) -> None:
    await site.task([ANSWER, "B"], criteria=CRITERIA)
    page = await open_page(site.link("alice"))
    seen = []
    for _ in range(14):
        await page.keyboard.press("Tab")
        # The ring is around the control itself, or around what stands for it where that is drawn by hand.
        seen.append(
            await page.evaluate(
                """() => {
                    const at = document.activeElement;
                    const around = [at, at.nextElementSibling, at.closest(".answer"), at.closest(".tie-choice")];
                    const ring = (one) => one && getComputedStyle(one).outlineStyle === "solid"
                        && parseFloat(getComputedStyle(one).outlineWidth) >= 2;
                    return [at.name || at.id || at.tagName, around.some(ring)];
                }"""
            )
        )
    assert [name for name, ring in seen if not ring and name != "BODY"] == []
    assert {"choice", "undo", "save"} - {name for name, _ in seen} <= {"undo"}
