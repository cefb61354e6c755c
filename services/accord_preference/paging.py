"""Pages: sizes, and tokens that say where the next one starts and fit only the request that they came from."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from accord.errors import InvalidArgument
from accord_preference.domain.canonical import canonical_json, digest


def page_size(asked: int, default: int, most: int) -> int:
    """How many to return: `asked`, at most `most`; 0 means `default`. InvalidArgument below 0."""
    if asked < 0:
        raise InvalidArgument.at("page_size", f"is {asked}; must be 0 (for {default}) or more")
    return min(asked, most) or default


def page_token(after: Any, *query: Any) -> str:
    """A token for the page behind `after` of the list that `query` describes."""
    return base64.urlsafe_b64encode(json.dumps([_list(query), after]).encode()).decode()


def read_token(token: str, start: Any, *query: Any) -> Any:
    """Where the page starts: `start` without a token. InvalidArgument for a token of another list."""
    if not token:
        return start
    try:
        kept, after = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (binascii.Error, ValueError, TypeError) as error:
        raise InvalidArgument.at("page_token", "was not made by this service; start again without one") from error
    if kept != _list(query) or type(after) is not type(start):
        raise InvalidArgument.at("page_token", "belongs to another list; keep the other fields as they were")
    return after


def _list(query: tuple[Any, ...]) -> str:
    """Which list a token is of."""
    return digest("page", canonical_json(query))[:16]
