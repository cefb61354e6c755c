"""The documentation site, opened from disk in a real Chromium: it loads nothing from the network and finds words."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.async_api import Browser

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The built site."""
    if importlib.util.find_spec("material") is None:
        pytest.skip("MkDocs is not installed: make docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return tmp_path


async def test_the_site_works_from_disk_without_a_network(browser: Browser, site: Path) -> None:
    page = await browser.new_page()
    asked: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    await page.goto((site / "index.html").as_uri())
    await page.locator(".md-search__input").click()
    await page.keyboard.type("importance sampling")
    result = page.locator(".md-search-result__link").first
    await result.wait_for(timeout=60_000)
    assert "Generation and training at the same time" in await result.inner_text()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert problems == []
