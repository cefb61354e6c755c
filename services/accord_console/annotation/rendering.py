"""Renders Markdown from models and people as HTML in which nothing can run.

Raw HTML is shown as text, `javascript:` and the like do not become links, images are named and not loaded (loading an
image would reveal the reader to its server). The Content-Security-Policy of every page is the second line of defence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup, escape
from pygments import highlight as pygments_highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

# Longer code is not highlighted: lexers are regular expressions, and answers may be anything.
MOST_HIGHLIGHTED = 20_000
# Control characters and those that change the direction of writing can disguise text; they are shown by code.
_UNSAFE = re.compile("[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]")


def markdown(text: str) -> Markup:
    """`text` as HTML."""
    return Markup(_MARKDOWN.render(visible(text)))  # html is off, every token is escaped


def plain(text: str) -> Markup:
    """`text` without formatting."""
    return Markup('<pre class="plain">{}</pre>').format(visible(text))


def visible(text: str) -> str:
    """`text` with characters that hide or reorder others shown as `\\u202e` and the like."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text.replace("\r\n", "\n"))


def _highlighted(code: str, language: str, _: Any) -> str:
    """The inside of a code block, with classes for the style sheet; empty: not highlighted."""
    if not language or len(code) > MOST_HIGHLIGHTED:
        return ""
    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        return ""
    return str(pygments_highlight(code, lexer, HtmlFormatter(nowrap=True, classprefix="c-")))


def _image(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    named = token.content or str(token.attrs.get("src", ""))
    return f'<span class="image">image: {escape(named)}</span>'


def _link(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    token.attrSet("rel", "noopener noreferrer nofollow")
    token.attrSet("target", "_blank")
    return self.renderToken(tokens, index, options, env)


def _cell(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    """The security policy forbids inline styles, so the alignment of a table column becomes a class."""
    style = str(tokens[index].attrs.pop("style", ""))
    if style.startswith("text-align:"):
        tokens[index].attrSet("class", f"to-{style.removeprefix('text-align:')}")
    return self.renderToken(tokens, index, options, env)


_MARKDOWN = MarkdownIt("commonmark", {"html": False, "breaks": True, "highlight": _highlighted})
_MARKDOWN.enable(["table", "strikethrough"])
_MARKDOWN.add_render_rule("image", _image)
_MARKDOWN.add_render_rule("link_open", _link)
_MARKDOWN.add_render_rule("th_open", _cell)
_MARKDOWN.add_render_rule("td_open", _cell)
