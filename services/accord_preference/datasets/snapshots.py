"""Snapshots and exports.

The digest of a snapshot is SHA-256 over a header line `accord.snapshot.v1 KIND` and one line per record: the record's
own digest (`canonical.prompt_record_digest`, `canonical.feedback_record_digest`), in hex, lines ending in LF. Records
are in the order of these digests, so the digest does not depend on the insertion order or the database.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from accord.errors import FailedPrecondition, InvalidArgument
from accord.preference import v1 as preference_v1
from accord_preference import converters
from accord_preference.annotators import check_annotator
from accord_preference.context import Context, not_found
from accord_preference.datasets.weighting import Weighting
from accord_preference.prompts import check_split
from accord_preference.storage.store import PREFERENCES, RecordRow, SnapshotRow, Writer
from accord_runtime.serving.paging import read_page

# An export message ends with the record that brings it above this size.
MESSAGE_BYTES = 2**19
R = TypeVar("R", preference_v1.ExportSnapshotResponse, preference_v1.ExportRecordsResponse)


class Snapshots:
    """The part of the service that creates snapshots and exports records."""

    def __init__(self, context: Context):
        self._context = context
        self._weighing = Weighting(context)

    async def create(self, request: preference_v1.CreateSnapshotRequest) -> preference_v1.CreateSnapshotResponse:
        """Freezes the records that match now. FailedPrecondition, EMPTY_SNAPSHOT, if none match."""
        filter_ = converters.filter_of(request.kind, request.filter)

        async def change(tx: Writer) -> preference_v1.CreateSnapshotResponse:
            hashed = hashlib.sha256(f"accord.snapshot.v1 {request.kind}\n".encode())
            counts: Counter[int] = Counter()
            async for digest, split in tx.record_digests(request.kind, filter_):
                hashed.update(digest.encode() + b"\n")
                counts[split] += 1
            if not counts:
                raise FailedPrecondition(
                    "no record matches the filter. Call GetStats to see which records exist",
                    reason="EMPTY_SNAPSHOT",
                )
            name = hashed.hexdigest()
            known = await tx.snapshot(name)
            if known is None:
                known = SnapshotRow(
                    digest=name,
                    kind=request.kind,
                    train_records=counts[preference_v1.SPLIT_TRAIN],
                    heldout_records=counts[preference_v1.SPLIT_HELDOUT],
                    created_us=self._context.now_us(),
                    filter=request.filter.SerializeToString(deterministic=True),
                )
                await tx.add_snapshot(known, filter_)
            return preference_v1.CreateSnapshotResponse(snapshot=converters.snapshot(known))

        # The digest and the stored records must come from one state, even while other transactions write.
        return await self._context.once.run(
            request.request_id,
            request,
            preference_v1.CreateSnapshotResponse,
            change,
            steady=True,
        )

    async def get(self, request: preference_v1.GetSnapshotRequest) -> preference_v1.GetSnapshotResponse:
        """One snapshot by digest."""
        return preference_v1.GetSnapshotResponse(snapshot=converters.snapshot(await self._find(request.digest)))

    async def page(self, request: preference_v1.ListSnapshotsRequest) -> preference_v1.ListSnapshotsResponse:
        """One page of snapshots, newest first."""
        page = read_page(request, 0, "snapshots")
        async with self._context.store.reading() as tx:
            found = await tx.list_snapshots(page.after, page.size + 1)
        rows, token = page.cut(found, lambda row: row.number)
        return preference_v1.ListSnapshotsResponse(
            snapshots=[converters.snapshot(row) for row in rows], next_page_token=token
        )

    async def origins(
        self, request: preference_v1.GetSnapshotOriginsRequest
    ) -> preference_v1.GetSnapshotOriginsResponse:
        """The annotators, sources and weights behind a snapshot's records."""
        snapshot = await self._find(request.digest)
        async with self._context.store.reading() as tx:
            return converters.origins(snapshot, await tx.snapshot_origins(snapshot))

    async def uses(self, request: preference_v1.ListSnapshotUsesRequest) -> preference_v1.ListSnapshotUsesResponse:
        """The snapshots that contain feedback from an annotator, or on a prompt or completion."""
        which = request.WhichOneof("subject")
        async with self._context.store.reading() as tx:
            if which == "annotator":
                check_annotator(request.annotator, "annotator")
                who = (request.annotator.annotator_id, int(request.annotator.kind))
                found = await tx.snapshot_uses(annotator=who)
            elif which == "prompt_id" and request.prompt_id:
                found = await tx.snapshot_uses(prompt_id=request.prompt_id)
            elif which == "completion_id" and request.completion_id:
                found = await tx.snapshot_uses(completion_id=request.completion_id)
            else:
                raise InvalidArgument.at("subject", "set one of annotator, prompt_id, completion_id")
        return preference_v1.ListSnapshotUsesResponse(uses=[converters.snapshot_use(*use) for use in found])

    async def export_snapshot(
        self, request: preference_v1.ExportSnapshotRequest
    ) -> AsyncIterator[preference_v1.ExportSnapshotResponse]:
        """Streams the records of a snapshot in canonical order: always the same bytes and, on request, with weights
        that depend only on the snapshot."""
        split = check_split(request.split)
        snapshot = await self._find(request.digest)
        weights = await self._weights(request, snapshot)

        async def read(after: tuple[int | str, ...], limit: int) -> list[RecordRow]:
            async with self._context.store.reading() as tx:
                return await tx.snapshot_page(snapshot, after, limit, split)

        async for response in self._stream(preference_v1.ExportSnapshotResponse, read, weights):
            yield response

    async def export_records(
        self, request: preference_v1.ExportRecordsRequest
    ) -> AsyncIterator[preference_v1.ExportRecordsResponse]:
        """Streams the records that matched when the call arrived, in canonical order, from one state of the database;
        later writes and retractions have no effect."""
        filter_ = converters.filter_of(request.kind, request.filter, check_split(request.split))
        async with self._context.store.reading() as tx:
            numbers = await tx.record_numbers(request.kind, filter_)
        done = 0

        async def read(_: tuple[int | str, ...], limit: int) -> list[RecordRow]:
            nonlocal done
            wanted = numbers[done : done + limit]
            done += len(wanted)
            if not wanted:
                return []
            async with self._context.store.reading() as tx:
                return await tx.records(request.kind, wanted)

        async for response in self._stream(preference_v1.ExportRecordsResponse, read):
            yield response

    async def _weights(
        self, request: preference_v1.ExportSnapshotRequest, snapshot: SnapshotRow
    ) -> Sequence[float] | None:
        if request.weighting == preference_v1.WEIGHTING_UNSPECIFIED:
            return None
        if request.weighting != preference_v1.WEIGHTING_RELIABILITY:
            raise InvalidArgument.at("weighting", f"is {request.weighting}; must be unset or WEIGHTING_RELIABILITY")
        if snapshot.kind != PREFERENCES:
            raise InvalidArgument.at("weighting", "applies only to feedback, but this is a snapshot of prompts")
        return [float(weight) for weight in await self._weighing.of(snapshot)]

    async def _stream(
        self,
        response_type: type[R],
        page: Callable[[tuple[int | str, ...], int], Coroutine[Any, Any, list[RecordRow]]],
        weights: Sequence[float] | None = None,
    ) -> AsyncIterator[R]:
        """Reads page by page, each page in a separate transaction, so a slow reader holds no lock and little memory.
        The next page is read while one is sent.

        `weights`: by position in the snapshot.
        """
        limit = self._context.settings.page_records
        following = asyncio.ensure_future(page((), limit))
        try:
            while rows := await following:
                following = asyncio.ensure_future(page(rows[-1].position, limit))
                response, size = response_type(), 0
                for row in rows:
                    if size > MESSAGE_BYTES:
                        yield response
                        response, size = response_type(), 0
                    record = response.records.add()
                    converters.put_record(record, row)
                    if weights is not None:
                        record.weight = weights[int(row.position[0])]
                    size += record.ByteSize()
                yield response
        finally:
            following.cancel()

    async def _find(self, digest: str) -> SnapshotRow:
        async with self._context.store.reading() as tx:
            found = await tx.snapshot(digest)
        if found is None:
            raise not_found("snapshot", digest, "digest")
        return found
