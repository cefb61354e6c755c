"""Once per request_id, for ever: the answer is kept in the same transaction as what the request did."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message

from accord.errors import AlreadyExists, InvalidArgument
from accord_preference.context import Context
from accord_preference.store import RequestRow, Writer

M = TypeVar("M", bound=Message)


def content_of(request: Message) -> str:
    """The digest by which a repeated request is told from another one under the same request_id."""
    named = request.DESCRIPTOR.full_name.encode() + b"\n" + request.SerializeToString(deterministic=True)
    return hashlib.sha256(named).hexdigest()


async def once(
    context: Context,
    request_id: str,
    content: str,
    response_type: type[M],
    change: Callable[[Writer], Awaitable[M]],
    keep: Callable[[M], bool] = lambda _: True,
) -> M:
    """Does `change` in one transaction, or returns what it answered before to this request_id.

    An answer for which `keep` is false did nothing, and a repeat tries again. Raises AlreadyExists, REQUEST_ID_REUSED,
    where the request_id came with another content.
    """
    if not request_id:
        raise InvalidArgument.at("request_id", "must be set; repeat it to repeat the call safely")
    async with context.store.writing() as tx:
        known = await tx.request(request_id)
        if known is not None:
            if known.content != content:
                raise AlreadyExists(
                    f"request_id {request_id} was used for another request; use a new one",
                    reason="REQUEST_ID_REUSED",
                    metadata={"request_id": request_id},
                )
            return response_type.FromString(known.response)
        response = await change(tx)
        if keep(response):
            await tx.remember(RequestRow(request_id, content, response.SerializeToString()), context.now_us())
        return response
