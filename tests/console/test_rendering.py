"""Nothing that a model writes runs, loads or hides."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from accord_console.annotation.rendering import MOST_HIGHLIGHTED, markdown, plain

SAFE_TAGS = {
    "p", "br", "em", "strong", "code", "pre", "span", "a", "ul", "ol", "li", "blockquote", "h1", "h2", "h3", "h4", "h5",
    "h6", "hr", "table", "thead", "tbody", "tr", "th", "td", "s",
}  # fmt: skip
SAFE_ATTRIBUTES = {"class", "href", "title", "rel", "target", "start"}
ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<style>*{display:none}</style>",
    "</div></form><form action=https://evil.example><input name=choice>",
    "[click](javascript:alert(1))",
    "[click](JaVaScRiPt:alert(1))",
    "[click](data:text/html,<script>alert(1)</script>)",
    "[click](vbscript:x)",
    "[click](file:///etc/passwd)",
    "![x](javascript:alert(1))",
    "![tracker](https://evil.example/pixel.png)",
    '[a](https://example.org "x\\" onmouseover=\\"alert(1)")',
    "```\"><script>alert(1)</script>\ncode\n```",
    "```html\n<script>alert(1)</script>\n```",
    "<https://example.org/\"onclick=alert(1)>",
    "| a |\n|:-:|\n| <b onclick=alert(1)>x</b> |",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "[x]: javascript:alert(1)\n\n[x]",
]  # fmt: skip


class Tags(HTMLParser):
    """Every tag with its attributes, as a browser would find them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("render", [markdown, plain])
def test_markup_from_a_model_becomes_text(attack: str, render: type[str]) -> None:
    for tag, attributes in Tags(str(render(attack))).found:
        assert tag in SAFE_TAGS
        assert set(attributes) <= SAFE_ATTRIBUTES
        assert (attributes.get("href") or "https:").startswith(("https:", "http:", "mailto:"))


def test_markdown_and_code_are_shown_as_such() -> None:
    html = markdown(
        "**bold**\n\n```python\ndef f(): return 1\n```\n\n| a | b |\n|--|-:|\n| 1 | 2 |\n\n[site](https://example.org)"
    )
    assert "<strong>bold</strong>" in html
    assert '<span class="c-k">def</span>' in html
    assert '<td class="to-right">2</td>' in html
    assert 'href="https://example.org" rel="noopener noreferrer nofollow" target="_blank"' in html
    assert "style=" not in html


def test_characters_that_turn_text_round_are_shown() -> None:
    assert "\\u202e" in markdown("safe \u202e txt")
    assert "\\u202e" in plain("safe \u202e txt")
    assert "\\u0000" in markdown("a\x00b")


def test_long_code_is_not_coloured() -> None:
    assert "c-" not in markdown("```python\n" + "x = 1\n" * (MOST_HIGHLIGHTED // 6 + 1) + "```")
