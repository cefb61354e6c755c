"""The quality report: agreement of annotators with each other and with known answers, their speed and drift."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping

from accord.preference import v1 as preference_v1
from accord_preference.context import Context
from accord_preference.quality import krippendorff
from accord_preference.quality.report import Evidence, measure
from accord_preference.quality.tally import Tally
from accord_preference.storage.store import Filter, Reader

DAY_US = 86_400 * 1_000_000


class Quality:
    """The part of the service that measures the quality of annotators."""

    def __init__(self, context: Context):
        self._context = context

    async def report(self, request: preference_v1.GetQualityRequest) -> preference_v1.GetQualityResponse:
        """The report, with one part for each kind of annotator that gave judgements in the request's selection."""
        window_us = DAY_US
        if request.HasField("window"):
            window_us = request.window.seconds * 1_000_000 + request.window.nanos // 1000
        filter_ = Filter(
            sources=tuple(request.sources),
            annotator_kinds=tuple(request.annotator_kinds),
            queues=tuple(request.queues),
        )
        async with self._context.store.reading() as tx:
            tallies = await _tallies(tx, filter_)
            evidence = await self._evidence(tx, filter_, tallies)
        kinds = []
        for kind, tally in sorted(tallies.items()):
            # In a thread: a million judgements take seconds.
            kinds.append(await asyncio.to_thread(measure, kind, tally, evidence, window_us))
        return preference_v1.GetQualityResponse(kinds=kinds)

    async def agreement(self, queue: str) -> float | None:
        """Krippendorff's alpha of the choices of humans in a queue; None if there are none to compare."""
        filter_ = Filter(annotator_kinds=(preference_v1.ANNOTATOR_KIND_HUMAN,), queues=(queue,))
        async with self._context.store.reading() as tx:
            tallies = await _tallies(tx, filter_)
        return krippendorff.nominal(labels for tally in tallies.values() for labels in tally.votes.labels_by_pair())

    async def _evidence(self, tx: Reader, filter_: Filter, tallies: Mapping[int, Tally]) -> Evidence:
        states: dict[tuple[str, int], int] = {}
        after = ("", 0)
        while page := await tx.list_annotators(after, 1000, 0, 0):
            states.update({(row.annotator_id, row.kind): row.state for row in page})
            after = (page[-1].annotator_id, page[-1].kind)
        judged = {name for tally in tallies.values() for pair in tally.votes.pairs for name in pair}
        return Evidence(
            states=states,
            outcomes=await tx.outcomes(filter_.queues),
            corrected=await tx.corrected(filter_.queues),
            lengths=await tx.lengths(sorted(judged)),
        )


async def _tallies(tx: Reader, filter_: Filter) -> dict[int, Tally]:
    found: dict[int, Tally] = defaultdict(Tally)
    async for row in tx.judged(filter_):
        found[row.annotator_kind].add(row)
    return found
