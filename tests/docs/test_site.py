"""The documentation as a whole: every page is in the navigation, every link and every path leads somewhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from tests.docs.test_readme import ROOT, braces

pytestmark = pytest.mark.process

DOCS = ROOT / "docs"
DOCUMENTS = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
# Where a path in a document may start. Packages have many places, since documents shorten `accord_trainer/` away.
PLACES = [ROOT, ROOT / "services", ROOT / "clients/python", *sorted(ROOT.glob("services/accord_*"))]


def script(name: str) -> ModuleType:
    """A module of scripts/, which is no package."""
    found = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    return script("site_hooks")


def navigation(hooks: ModuleType) -> list[str]:
    """The pages in the order of the navigation."""
    return list(leaves(hooks.expand(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])))


def leaves(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from leaves(entry)


def test_every_page_is_in_the_navigation_once(hooks: ModuleType) -> None:
    pages = [page for page in navigation(hooks) if page not in hooks.ROOT_PAGES]
    assert sorted(pages) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_the_index_links_every_page_that_is_not_below_another(hooks: ModuleType) -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.md)", (DOCS / "index.md").read_text()))
    assert {page.name for page in DOCS.glob("*.md")} - {"index.md"} <= linked


def test_every_link_and_anchor_of_the_documents_exists() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/check_links.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_link_check_finds_what_is_broken(tmp_path: Path) -> None:
    check_links = script("check_links")
    (tmp_path / "other.md").write_text("# A heading, with `code`\n")
    page = tmp_path / "page.md"
    assert check_links.fault(page, "other.md#a-heading-with-code") is None
    assert check_links.fault(page, "https://example.org/a") is None
    for broken in ("missing.md", "other.md#b", "/absolute.md", "https:nowhere"):
        assert check_links.fault(page, broken), broken
    page.write_text("[a](one.md) ![b](two.png)\n\n```\n[c](three.md)\n```\n`[d](four.md)`\n")
    assert [target for _, target in check_links.links(page)] == ["one.md", "two.png"]


def test_links_to_repository_files_become_paths_on_the_site(hooks: ModuleType) -> None:
    markdown = (
        "[`demo.yaml`](../examples/demo.yaml) [the seam](../services/accord_rollout/engine.py) [g](glossary.md#people)"
    )
    assert hooks.site_links(markdown, "engines.md") == (
        "`examples/demo.yaml` the seam (`services/accord_rollout/engine.py`) [g](glossary.md#people)"
    )
    assert hooks.site_links("[up](../algorithms.md) [x](https://a.b)", "algorithms/ppo.md") == (
        "[up](../algorithms.md) [x](https://a.b)"
    )
    assert hooks.site_links("```\n[a](../b.py)\n```\n", "engines.md") == "```\n[a](../b.py)\n```\n"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_module_and_folder_that_a_document_names_exists(document: Path) -> None:
    text = re.sub(r"https?://\S+", "", document.read_text(encoding="utf-8"))
    named = re.findall(
        r"(?<![\w./:{-])(?:\.\./)*([\w{},*-]+(?:/[\w{},.*+-]+)*/[\w{},*+-]+\.(?:py|proto|ya?ml))\b", text
    )
    named += re.findall(r"`(accord(?:_[a-z]+)?/[\w{},./-]*)`", text)
    missing = [one for path in named for one in braces(path) if not any(list(place.glob(one)) for place in PLACES)]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_are_written_for_the_activated_environment(document: Path) -> None:
    blocks = re.findall(r"(?s)```(?:sh|bash).*?\n(.*?)```", document.read_text(encoding="utf-8"))
    assert [line for block in blocks for line in block.splitlines() if line.startswith(".venv/bin/")] == []
