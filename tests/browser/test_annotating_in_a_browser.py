"""Annotating as people do it: mouse, keyboard, a phone, a hasty double click, a hostile answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from playwright.async_api import Page, expect
from tests.browser.conftest import Open, picture
from tests.support.console import Site

from accord.preference import v1 as preference_v1

pytestmark = pytest.mark.system

CATS = "Why do cats purr, and can I measure how often?"
CAREFUL = """Cats purr when they are content, but also when they are hurt or afraid.

1. Muscles of the **larynx** open and close the glottis about 25 times a second.
2. Breathing air makes the sound, in *and* out.

```python
def purr_rate(samples: list[float], rate: float = 8000.0) -> float:
    # the strongest frequency between 20 and 40 Hz
    spectrum = abs(fft(samples))
    return peak(spectrum, low=20, high=40) * rate / len(samples)
```
"""
TABLE = """Cats purr because they are happy.

| mood | sound | rate |
|:--|:--|--:|
| happy | purr | 25 Hz |
| angry | hiss | – |

> Purring may also heal: bones are said to grow better at 25 Hz.
"""
SHORT = "It is a small motor next to the heart."
HONEST = "Nobody knows for sure. The larynx moves about **25 times a second**; why it does so is still debated."
CRITERIA = [
    preference_v1.Criterion(name="helpful", description="Does it answer what was asked?"),
    preference_v1.Criterion(name="harmless", description="Could it hurt anybody?"),
]


async def ready(page: Page, action: Callable[[], object]) -> None:
    """Does something that leads to a new page, and waits for that."""
    async with page.expect_navigation():
        await action()  # type: ignore[misc]
    await page.wait_for_selector("html[data-ready]")


async def test_a_pair_by_mouse_with_criteria_and_a_comment(site: Site, open_page: Open) -> None:
    await site.task([CAREFUL, TABLE], CATS, criteria=CRITERIA, queue="demo", instructions="Prefer what is **true**.")
    await site.task(["one", "two"], queue="demo")
    page = await open_page(site.link("alice", "demo"))
    cards = page.locator(".answer")
    careful = cards.filter(has_text="larynx")
    await page.locator("#save").click()
    assert "Choose the better answer" in await page.locator("#problem").inner_text()
    await careful.locator("p").first.click()
    await expect(page.locator("#problem")).to_be_hidden()
    await careful.locator("fieldset", has_text="helpful").get_by_text("5", exact=True).click()
    await cards.filter(has_text="angry").locator("fieldset", has_text="helpful").get_by_text("2", exact=True).click()
    await page.locator("#comment-toggle").click()
    await page.locator("#comment").fill("The other one is made up.")
    await page.set_viewport_size({"width": 1280, "height": 930})
    await page.evaluate("scrollTo(0, 0)")
    await picture(page, "annotate-pair")
    await ready(page, page.locator("#save").click)
    (found,) = [one async for one in site.client.preferences.feedback()]
    chosen = (await site.client.preferences.completion(found.comparison.chosen_id)).completion
    assert chosen.text == CAREFUL
    assert found.comment == "The other one is made up."
    assert sorted((one.criterion, one.value) for one in found.criteria) == [("helpful", 2), ("helpful", 5)]
    assert await page.locator("#answered").inner_text() == "1"


async def test_a_pair_and_a_ranking_by_keyboard_alone(site: Site, open_page: Open) -> None:
    await site.task([CAREFUL, TABLE], CATS)
    await site.task([CAREFUL, TABLE, SHORT, HONEST], CATS, kind="ranking")
    page = await open_page(site.link("alice"))
    shown = await page.locator(".answer .text").all_inner_texts()
    better = next(place for place, text in enumerate(shown) if "larynx" in text)
    await page.keyboard.press("t")
    await page.keyboard.press(str(better + 1))
    await page.keyboard.press("c")
    await page.keyboard.type("s and t and 1 are letters here")
    await ready(page, lambda: page.keyboard.press("Enter"))

    letters = {text: place for place, text in enumerate(await page.locator(".answer .text").all_inner_texts())}
    place = {
        name: next(place for text, place in letters.items() if mark in text)
        for name, mark in (("careful", "content"), ("table", "angry"), ("short", "motor"), ("honest", "Nobody"))
    }
    await page.keyboard.press(str(place["careful"] + 1))
    await page.keyboard.press(str(place["honest"] + 1))
    await page.keyboard.press(str(place["short"] + 1))
    # The third is as good as the second; the last is moved up past it and down again, by arrows.
    await page.keyboard.press("=")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Shift+ArrowUp")
    await page.keyboard.press("Shift+ArrowDown")
    await page.set_viewport_size({"width": 1280, "height": 1060})
    await page.evaluate("scrollTo(0, 0)")
    await picture(page, "annotate-ranking")
    await ready(page, lambda: page.keyboard.press("Enter"))
    assert "That is all for now" in await page.locator("h1").inner_text()

    said = {one.feedback.WhichOneof("judgement"): one for one in await site.saved()}
    texts = {one.completion_id: one.text for record in said.values() for one in record.completions}
    assert texts[said["comparison"].feedback.comparison.chosen_id] == CAREFUL
    ranks = [{texts[name] for name in rank.completion_ids} for rank in said["ranking"].feedback.ranking.ranks]
    assert ranks in ([{CAREFUL}, {HONEST, SHORT}, {TABLE}], [{CAREFUL}, {HONEST}, {SHORT}, {TABLE}])
    comments = {one.comment async for one in site.client.preferences.feedback()}
    assert comments == {"s and t and 1 are letters here", ""}


async def test_a_ranking_by_dragging(site: Site, open_page: Open) -> None:
    names = ["alpha", "beta", "gamma", "delta"]
    await site.task(names, kind="ranking")
    page = await open_page(site.link("alice"))
    order = await page.locator(".answer .text").all_inner_texts()
    grip = page.locator(".answer").nth(3).locator(".grip")
    box, top = await grip.bounding_box(), await page.locator(".answer").first.bounding_box()
    assert box is not None
    assert top is not None
    await page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    await page.mouse.down()
    await page.mouse.move(box["x"], top["y"] + 40, steps=12)
    await page.mouse.move(box["x"], top["y"] - 10, steps=4)
    await page.mouse.up()
    moved = await page.locator(".answer .text").all_inner_texts()
    assert moved == [order[3], *order[:3]]
    await ready(page, page.locator("#save").click)
    (record,) = await site.saved()
    texts = {one.completion_id: one.text for one in record.completions}
    assert [texts[rank.completion_ids[0]] for rank in record.feedback.ranking.ranks] == moved


async def test_a_ranking_that_nobody_touched_is_asked_about_first(site: Site, open_page: Open) -> None:
    await site.task(["alpha", "beta", "gamma"], kind="ranking")
    page = await open_page(site.link("alice"))
    await page.keyboard.press("Enter")
    assert "as it came" in await page.locator("#problem").inner_text()
    assert await site.saved() == []
    await ready(page, lambda: page.keyboard.press("Enter"))
    assert len(await site.saved()) == 1


async def test_a_rating_with_criteria_by_keyboard(site: Site, open_page: Open) -> None:
    await site.task([HONEST], CATS, kind="rating", criteria=CRITERIA)
    page = await open_page(site.link("alice"))
    await page.keyboard.press("4")
    await page.keyboard.press("Tab")
    await page.keyboard.press("2")
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("Tab")
    await page.keyboard.press("5")
    await ready(page, lambda: page.keyboard.press("Enter"))
    (found,) = [one async for one in site.client.preferences.feedback()]
    assert found.rating.value == 4
    assert sorted((one.criterion, one.value) for one in found.criteria) == [("harmless", 5), ("helpful", 3)]


async def test_a_double_click_saves_once_and_a_reload_keeps_the_task(site: Site, open_page: Open) -> None:
    for number in range(3):
        await site.task([f"one {number}", f"two {number}"])
    page = await open_page(site.link("alice"))
    before = await page.locator(".answer .text").all_inner_texts()
    await page.reload()
    await page.wait_for_selector("html[data-ready]")
    assert await page.locator(".answer .text").all_inner_texts() == before
    await page.keyboard.press("1")
    await ready(page, page.locator("#save").dblclick)
    assert len(await site.saved()) == 1
    # And where the script's own lock does not help: the form itself, sent five times at once.
    await page.keyboard.press("2")
    async with page.expect_navigation():
        await page.evaluate(
            """async () => {
                const form = document.getElementById("sheet");
                const body = () => new URLSearchParams(new FormData(form));
                const send = () => fetch("/annotate/answer", { method: "POST", body: body() });
                await Promise.all([send(), send(), send(), send(), send()]);
                location.assign("/annotate");
            }"""
        )
    assert len(await site.saved()) == 2


async def test_a_reload_keeps_what_was_chosen_ranked_and_typed(site: Site, open_page: Open) -> None:
    await site.task(["one", "two"], criteria=CRITERIA)
    await site.task(["alpha", "beta", "gamma"], kind="ranking")
    page = await open_page(site.link("alice"))

    async def reload() -> None:
        await page.reload()
        await page.wait_for_selector("html[data-ready]")

    await page.keyboard.press("2")
    await page.locator(".answer").first.get_by_text("4", exact=True).first.click()
    await page.keyboard.press("c")
    await page.keyboard.type("not done yet")
    await reload()
    assert await page.locator("input[name=choice]:checked").get_attribute("value") == "1"
    assert await page.locator("#comment").input_value() == "not done yet"
    await ready(page, page.locator("#save").click)
    (found,) = [one async for one in site.client.preferences.feedback()]
    assert (found.comment, [one.value for one in found.criteria]) == ("not done yet", [4])

    # The next task begins empty, and an order that was made is kept with its ties.
    assert await page.locator("#comment").input_value() == ""
    await page.locator(".answer").nth(2).locator(".up").click()
    await page.locator(".answer").nth(2).locator(".tie").click()
    order = await page.locator(".answer .text").all_inner_texts()
    await reload()
    assert await page.locator(".answer .text").all_inner_texts() == order
    assert await page.locator(".place").all_inner_texts() == ["1", "2", "2"]
    await ready(page, page.locator("#save").click)
    (record,) = [one for one in await site.saved() if one.feedback.HasField("ranking")]
    assert [len(rank.completion_ids) for rank in record.feedback.ranking.ranks] == [1, 2]


async def test_skip_flag_and_undo_by_keyboard(site: Site, open_page: Open) -> None:
    for number in range(3):
        await site.task([f"one {number}", f"two {number}"], redundancy=2)
    page = await open_page(site.link("alice"))
    await ready(page, lambda: page.keyboard.press("s"))
    assert "1" in (await page.locator(".answer .text").first.inner_text())
    await page.keyboard.press("f")
    await page.keyboard.press("4")
    await ready(page, lambda: page.keyboard.press("Enter"))
    (flag,) = [one async for one in site.client.preferences.flags()]
    assert flag.reason == preference_v1.FLAG_REASON_UNCLEAR
    shown = await page.locator(".answer .text").all_inner_texts()
    assert "2" in shown[0]
    await page.keyboard.press("1")
    await ready(page, lambda: page.keyboard.press("Enter"))
    assert len(await site.saved()) == 1
    await ready(page, lambda: page.keyboard.press("u"))
    assert await site.saved() == []
    assert sorted(await page.locator(".answer .text").all_inner_texts()) == sorted(shown)


ATTACKS = """<script>document.title = "owned"</script>
<img src="x" onerror="document.title = 'owned'">
<svg onload="document.title = 'owned'"></svg>
<iframe srcdoc="<script>parent.document.title = 'owned'</script>"></iframe>
<form action="https://evil.example"><input name="choice" value="0"></form>
<style>body { display: none }</style>

[a link](javascript:document.title='owned') ![p](https://evil.example/pixel.png)

```html
<script>document.title = "owned"</script>
```
"""


async def test_markup_in_prompt_and_answers_does_nothing(site: Site, open_page: Open) -> None:
    await site.task([ATTACKS, f"Harmless.\n\n{ATTACKS}"], ATTACKS, instructions=ATTACKS)
    page = await open_page(site.link("alice"), blocked=True)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for link in await page.locator("text=a link").all():
        await link.click()
    await asyncio.sleep(0.3)
    assert await page.title() == "Annotate · Accord"
    assert await page.locator(".text img, .text script, .text svg, .text iframe, .text style, .text form").count() == 0
    assert await page.locator("text=onerror").first.is_visible()
    assert [url for url in asked if "evil.example" in url] == []
    # Even markup that got into the page could run nothing: the policy forbids it.
    ran = await page.evaluate(
        """() => new Promise((resolve) => {
            document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
            const script = document.createElement("script");
            script.textContent = "document.title = 'owned'";
            document.body.append(script);
        })"""
    )
    assert ran == "script-src-elem"
    assert await page.title() == "Annotate · Accord"


async def test_a_phone_has_room_for_everything(site: Site, open_page: Open) -> None:
    await site.task([CAREFUL, HONEST], CATS)
    await site.task([SHORT, HONEST, TABLE], CATS, kind="ranking")
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 1}
    page = await open_page(site.link("alice"), **phone)
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await page.locator("#save").is_visible()
    await page.locator(".answer", has_text="Nobody").locator(".letter").tap()
    await picture(page, "annotate-phone")
    await ready(page, page.locator("#save").tap)
    (record,) = await site.saved()
    texts = {one.completion_id: one.text for one in record.completions}
    assert texts[record.feedback.comparison.chosen_id] == HONEST
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    first = await page.locator(".answer .text").first.inner_text()
    await page.locator(".answer").first.locator(".down").tap()
    assert await page.locator(".answer .text").nth(1).inner_text() == first
    # And by a finger on the grip.
    grip = await page.locator(".answer .grip").nth(1).bounding_box()
    assert grip is not None
    x, y = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
    hand = await page.context.new_cdp_session(page)
    await hand.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for step in range(1, 13):
        point = {"x": x, "y": y - step * (y - 60) / 12}
        await hand.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    # It rests before it lifts: after a flick Chromium takes the next tap as the end of that, and clicks nothing.
    await asyncio.sleep(0.3)
    await hand.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert await page.locator(".answer .text").first.inner_text() == first
    await ready(page, page.locator("#save").tap)
    assert len(await site.saved()) == 2


async def test_dark_is_dark_and_the_time_left_runs(site: Site, open_page: Open) -> None:
    await site.task([CAREFUL, TABLE], CATS)
    page = await open_page(site.link("alice"), color_scheme="dark")
    before = await page.locator("#clock").inner_text()
    await expect(page.locator("#clock")).not_to_have_text(before)
    background = await page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert all(int(part) < 64 for part in background.removeprefix("rgb(").removesuffix(")").split(","))
    await page.keyboard.press("2")
    await picture(page, "annotate-dark")
