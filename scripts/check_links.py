"""Check the links of the documents and of the built site, without network access: only the form of external links is
checked.

    python scripts/check_links.py                    README.md, other documents of the root, docs/
    python scripts/check_links.py --site build/site  also the pages of the built site, which must load nothing external

Exits with code 1 if a link is broken.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"(?ms)^(```|~~~).*?^\1|<!--.*?-->")
CODE = re.compile(r"(`+).+?\1")
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"|<(https?://[^>\s]+)>")
HEADING = re.compile(r"(?m)^#{1,6}\s+(.+?)\s*#*$")
# Elements whose target a browser loads automatically.
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


def documents() -> list[Path]:
    """The documents of the repository."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def slug(heading: str) -> str:
    """The anchor that GitHub and MkDocs generate for a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", text).strip().lower())


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a document."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return frozenset(slug(heading) for heading in HEADING.findall(text)) | frozenset(re.findall(r'id="([^"]+)"', text))


def links(page: Path) -> Iterator[tuple[int, str]]:
    """(line, target) of every link in a document, except in code."""
    text = FENCE.sub(lambda found: "\n" * found[0].count("\n"), page.read_text(encoding="utf-8"))
    for number, line in enumerate(text.splitlines(), 1):
        # Link texts may be code, so only the content of the backticks is removed.
        for found in LINK.finditer(CODE.sub("``", line)):
            yield number, next(filter(None, found.groups()))


def fault(page: Path, target: str) -> str | None:
    """The problem of a link, or None."""
    parts = urlsplit(target)
    if parts.scheme:
        if parts.scheme == "mailto":
            return None
        return None if parts.scheme in ("http", "https") and parts.netloc else "is not a valid URL"
    if target.startswith("/"):
        return "is absolute; write it relative to the document"
    file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not file.exists():
        return "does not exist"
    if parts.fragment and file.suffix == ".md" and parts.fragment not in anchors(file):
        return f"{file.name} has no heading #{parts.fragment}"
    return None


class Page(HTMLParser):
    """The ids and links of a site page; `loads` are the targets that a browser loads automatically."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in LOADED and LOADED[tag] in given and given.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(given[LOADED[tag]])


def site_faults(site: Path) -> Iterator[str]:
    """The broken links of the built site."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    for path, page in pages.items():
        for target in page.loads:
            if urlsplit(target).netloc:
                yield f"{path.relative_to(site.resolve())}: loads {target} from the network"
        for target in [*page.links, *page.loads]:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            other = pages.get(file / "index.html" if file.is_dir() else file)
            anchor = unquote(parts.fragment)
            if not file.exists() or (other and anchor and anchor not in other.ids and not anchor.startswith("__")):
                yield f"{path.relative_to(site.resolve())}: {target} does not exist"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--site", type=Path, help="the folder of the built site")
    site = parser.parse_args().site
    checked = [(page, line, target) for page in documents() for line, target in links(page)]
    faults = [
        f"{page.relative_to(ROOT)}:{line}: {target}: {found}"
        for page, line, target in checked
        if (found := fault(page, target))
    ]
    if site is not None:
        faults += site_faults(site)
    if faults:
        sys.exit("\n".join([*faults, f"{len(faults)} broken links"]))
    print(f"{len(checked)} links in {len(documents())} documents are valid", end="\n" if site is None else "; ")
    if site is not None:
        print(f"so are the links of {site}")


if __name__ == "__main__":
    main()
