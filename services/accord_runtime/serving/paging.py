"""Pages of a list: their size, and the tokens that mark where the next page starts. A token is valid only for its
list."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

from accord.errors import InvalidArgument

P = TypeVar("P")
R = TypeVar("R")
# The range of numbers that a database stores.
_LEAST, _MOST = -(2**63), 2**63 - 1


class PageRequest(Protocol):
    """A List request (AIP-158)."""

    @property
    def page_size(self) -> int: ...

    @property
    def page_token(self) -> str: ...


@dataclass(frozen=True)
class Page(Generic[P]):
    """One page: at most `size` entries after position `after`."""

    size: int
    after: P
    _list: str

    def cut(self, found: Sequence[R], position: Callable[[R], P]) -> tuple[Sequence[R], str]:
        """The entries of the page and the token of the next page ("": none), from `size` + 1 entries, or fewer at the
        end of the list. `position`: where the page after an entry starts."""
        page = found[: self.size]
        return page, self.token(position(page[-1])) if len(found) > self.size else ""

    def token(self, after: P) -> str:
        """The token of the page after `after`."""
        return base64.urlsafe_b64encode(json.dumps([self._list, after]).encode()).decode()


def read_page(request: PageRequest, start: P, *query: Any, default: int = 100, most: int = 1000) -> Page[P]:
    """The page that `request` asks for, from the list that `query` describes (its name, then its filters).

    A size of 0 is `default`, a size above `most` is `most`, and a page without a token begins at `start`.
    InvalidArgument for a size below 0, a token of another list, or a token that no service issued.
    """
    digest = _digest(query)
    return Page(page_size(request.page_size, default, most), _read_token(request.page_token, start, digest), digest)


def page_size(asked: int, default: int, most: int) -> int:
    """The size of a page: `asked`, at most `most`; 0 means `default`."""
    return min(asked, most) or default


def _read_token(token: str, start: P, digest: str) -> P:
    if not token:
        return start
    try:
        # The controller of 0.1.0 issued plain numbers.
        found = [digest, int(token)] if token.isdecimal() else json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, RecursionError) as error:
        raise _malformed() from error
    match found:
        case [str() as kept, after] if _is_like(after, start):
            if kept != digest:
                raise InvalidArgument.at(
                    "page_token", "belongs to another list. Keep the other fields of the request unchanged"
                )
            return cast(P, after)
    raise _malformed()


def _is_like(value: Any, start: Any) -> bool:
    """Whether a position has the same shape as `start` and its numbers can be stored."""
    if isinstance(start, list):
        if not isinstance(value, list) or len(value) != len(start):
            return False
        return all(_is_like(one, other) for one, other in zip(value, start, strict=True))
    return type(value) is type(start) and (not isinstance(value, int) or _LEAST <= value <= _MOST)


def _malformed() -> InvalidArgument:
    return InvalidArgument.at("page_token", "was not issued by this service. Start again without a token")


def _digest(query: tuple[Any, ...]) -> str:
    """The name of a list, unchanged since 0.1.0 so that its page tokens stay valid."""
    text = json.dumps(query, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"accord.page.v1\n{text}".encode()).hexdigest()[:16]
