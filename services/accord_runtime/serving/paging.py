"""Pages of a list: their size, and tokens that say where the next page starts and fit only the list they came from."""

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
# What a database stores as a number.
_LEAST, _MOST = -(2**63), 2**63 - 1


class PageRequest(Protocol):
    """A List request (AIP-158)."""

    @property
    def page_size(self) -> int: ...

    @property
    def page_token(self) -> str: ...


@dataclass(frozen=True)
class Page(Generic[P]):
    """One page: at most `size` entries behind position `after`."""

    size: int
    after: P
    _list: str

    def cut(self, found: Sequence[R], position: Callable[[R], P]) -> tuple[Sequence[R], str]:
        """The entries of the page and the token of the next ("": none), from `size` + 1 entries, or fewer at the
        end of the list. `position`: where the page behind an entry starts."""
        page = found[: self.size]
        return page, self.token(position(page[-1])) if len(found) > self.size else ""

    def token(self, after: P) -> str:
        """The token of the page behind `after`."""
        return base64.urlsafe_b64encode(json.dumps([self._list, after]).encode()).decode()


def read_page(
    request: PageRequest, start: P, *query: Any, default: int = 100, most: int = 1000, plain_numbers: bool = False
) -> Page[P]:
    """The page that `request` asks for, of the list that `query` describes (its name, then its filters).

    A size of 0 is `default`, a size above `most` is `most`, and a page without a token begins at `start`.
    `plain_numbers`: a position alone is a token too, as the controller of 0.1.0 made them. InvalidArgument for a size
    below 0, a token of another list, or a token that no service issued.
    """
    digest, token = _digest(query), request.page_token
    after = _read_token(token, start, digest, plain_numbers=plain_numbers) if token else start
    return Page(page_size(request.page_size, default, most), after, digest)


def page_size(asked: int, default: int, most: int) -> int:
    """The size of a page: `asked`, at most `most`; 0 means `default`."""
    return min(asked, most) or default


def _read_token(token: str, start: P, digest: str, *, plain_numbers: bool) -> P:
    try:
        if plain_numbers and token.isdecimal():
            found = [digest, int(token)]
        else:
            found = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, RecursionError) as error:
        raise _malformed() from error
    match found:
        case [str() as kept, after] if _is_like(after, start):
            if kept != digest:
                raise InvalidArgument.at("page_token", "belongs to another list; keep the other fields as they were")
            return cast(P, after)
    raise _malformed()


def _is_like(value: Any, start: Any) -> bool:
    """Whether a position is of the same shape as `start`, and a database can store its numbers and texts."""
    if isinstance(start, list):
        if not isinstance(value, list) or len(value) != len(start):
            return False
        return all(_is_like(one, other) for one, other in zip(value, start, strict=True))
    if isinstance(value, int):
        return type(value) is type(start) and _LEAST <= value <= _MOST
    return type(value) is type(start) and (not isinstance(value, str) or _is_storable(value))


def _is_storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _malformed() -> InvalidArgument:
    return InvalidArgument.at("page_token", "was not made by this service; start again without a token")


def _digest(query: tuple[Any, ...]) -> str:
    """Names a list, as 0.1.0 named it: its page tokens stay valid."""
    text = json.dumps(query, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"accord.page.v1\n{text}".encode()).hexdigest()[:16]
