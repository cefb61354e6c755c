"""Hooks of the documentation site (mkdocs.yml): pages from the repository root, globs in the navigation, links to
sources.

Documents link to repository files (`../examples/demo.yaml`), which the site does not contain. The site shows such a
link as the file's path. A page in the root (ARCHITECTURE.md, ...) becomes a page of the site if it exists.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
# page of the site -> document in the root
ROOT_PAGES = {
    "architecture.md": "ARCHITECTURE.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "changelog.md": "CHANGELOG.md",
}
FENCE = re.compile(r"(?ms)^(```|~~~).*?^\1")
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def expand(nav: list[Any]) -> list[Any]:
    """The navigation with every `folder/*` replaced by its pages, and without root pages that do not exist."""
    found: list[Any] = []
    for entry in nav:
        title, value = next(iter(entry.items())) if isinstance(entry, dict) else (None, entry)
        if isinstance(value, list):
            if section := expand(value):
                found.append({title: section})
        elif "*" in value:
            found += sorted(path.relative_to(DOCS).as_posix() for path in DOCS.glob(f"{value}.md"))
        elif value not in ROOT_PAGES or (ROOT / ROOT_PAGES[value]).is_file():
            found.append(entry)
    return found


def outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    """Applies `change` to everything except fenced code."""
    parts: list[str] = []
    end = 0
    for fence in FENCE.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])


def site_links(markdown: str, page: str) -> str:
    """Rewrites the links of a page: to a page of the site if there is one, else to the file's path."""
    folder = posixpath.dirname(ROOT_PAGES.get(page) or f"docs/{page}")
    by_source = {source: name for name, source in ROOT_PAGES.items()}

    def rewritten(link: re.Match[str]) -> str:
        text, (path, _, anchor) = link["text"], link["target"].partition("#")
        if not path or re.match(r"[a-z][a-z0-9+.-]*:", path):
            return link[0]
        source = posixpath.normpath(posixpath.join(folder, path))
        name = by_source.get(source) or (source.removeprefix("docs/") if source.startswith("docs/") else None)
        if name is not None:
            target = posixpath.relpath(name, posixpath.dirname(page) or ".")
            return f"[{text}]({target}{'#' + anchor if anchor else ''})"
        plain = text.replace("`", "")
        return f"`{source}`" if source.endswith(plain) else f"{text} (`{source}`)"

    return outside_fences(markdown, lambda part: LINK.sub(rewritten, part))


def on_config(config: Any) -> Any:
    """Expands the navigation."""
    config.nav = expand(config.nav)
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages from the root."""
    from mkdocs.structure.files import File

    for page, source in ROOT_PAGES.items():
        if (ROOT / source).is_file():
            files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Rewrites links to files that are not in the site."""
    return site_links(markdown, page.file.src_uri)
