"""Once per request_id, for ever: the answer is kept in the same transaction as what the request did."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message

from accord.errors import Aborted, AlreadyExists, InvalidArgument
from accord_preference.context import Context
from accord_preference.storage.store import RequestRow, Writer

M = TypeVar("M", bound=Message)
T = TypeVar("T")
# How often a transaction is tried that others get in the way of.
ATTEMPTS = 8


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
    *,
    steady: bool = False,
) -> M:
    """Does `change` in one transaction, or returns what it answered before to this request_id.

    An answer for which `keep` is false did nothing, and a repeat tries again. `change` runs again where other
    transactions were in the way. Raises AlreadyExists, REQUEST_ID_REUSED, where the request_id came with another
    content.
    """
    if not request_id:
        raise InvalidArgument.at("request_id", "must be set; repeat it to repeat the call safely")
    return await retrying(lambda: _once(context, request_id, content, response_type, change, keep, steady))


async def retrying(transaction: Callable[[], Awaitable[T]]) -> T:
    """What `transaction` returns, run again while others get in its way. Aborted after the last of the attempts."""
    for attempt in range(ATTEMPTS - 1):
        try:
            return await transaction()
        except Aborted as error:
            if error.reason != "DATABASE_CONFLICT":
                raise
        # At random, so that those who met do not meet again.
        await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))
    return await transaction()


async def _once(
    context: Context,
    request_id: str,
    content: str,
    response_type: type[M],
    change: Callable[[Writer], Awaitable[M]],
    keep: Callable[[M], bool],
    steady: bool,
) -> M:
    async with context.store.writing(steady=steady) as tx:
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
