"""A real Chromium, without a window. `make test-console` runs these tests and installs the browser where it may."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, Page, async_playwright
from tests.support.console import Site, console_site

# The machine may be busy with other things: what is waited for comes, or the test ends after this.
PATIENCE_MS = 60_000
Open = Callable[..., Awaitable[Page]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


def chromium() -> str:
    """The browser's program."""
    found = os.environ.get("ACCORD_CHROMIUM") or next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
    )
    if not found:
        pytest.skip("no Chromium here: install it (apt-get install chromium) or name it in ACCORD_CHROMIUM")
    return found


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A browser of this test alone."""
    async with async_playwright() as playwright:
        # Chromium's own sandbox needs a user that is not root.
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        running = await playwright.chromium.launch(executable_path=chromium(), args=[*flags, "--disable-gpu"])
        yield running
        await running.close()


@pytest.fixture
async def open_page(browser: Browser) -> AsyncIterator[Open]:
    """`open_page(url, **context)`: a page in a session of its own. A script error or a blocked script fails the test,
    unless the test does it on purpose: `blocked=True`. `path`: where the operator goes from there."""
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    def heard(text: str, blocked: bool) -> None:
        # Answers of status 400 and the like are told there too; what they say is on the page.
        if "Failed to load resource" not in text and not (blocked and "Content Security Policy" in text):
            problems.append(text)

    async def make(url: str, *, path: str = "", blocked: bool = False, **options: object) -> Page:
        chosen = {"viewport": {"width": 1280, "height": 820}, **options}
        context = await browser.new_context(**chosen)  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = await context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: heard(said.text, blocked) if said.type == "error" else None)
        await page.goto(url)
        if path:
            await page.goto(f"{url.partition('/operator')[0]}{path}")
        else:
            await page.wait_for_selector("html[data-ready]")
        return page

    yield make
    for context in contexts:
        await context.close()
    assert problems == []


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A console in front of a preference service of its own."""
    async with console_site(tmp_path / "state") as found:
        yield found


async def picture(page: Page, name: str) -> None:
    """A picture for the documentation: taken at each run, kept where `make pictures` says."""
    taken = await page.screenshot(animations="disabled")
    folder = os.environ.get("ACCORD_PICTURES")
    if folder:
        (Path(folder) / f"{name}.png").write_bytes(taken)


async def barriers(page: Page) -> list[str]:
    """What on this page keeps somebody out, by the rules of WCAG 2.1 A and AA that axe-core can check."""
    rules = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
    found = await Axe().run(page, options={"resultTypes": ["violations"], "runOnly": rules})
    return [
        f"{one['id']}: {node['html'][:120]} {node['any'][0]['message'] if node['any'] else ''}"
        for one in found.response["violations"]
        for node in one["nodes"]
    ]
