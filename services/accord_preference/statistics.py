"""Statistics: the progress of a queue, and counts over everything."""

from __future__ import annotations

from accord.errors import InvalidArgument
from accord.preference import v1 as preference_v1
from accord_preference.context import Context
from accord_preference.quality.quality import Quality

# The period that GetQueue calls recent.
RECENT_US = 600 * 1_000_000


class Statistics:
    """The part of the service that computes statistics."""

    def __init__(self, context: Context, quality: Quality):
        self._context = context
        self._quality = quality

    async def queue(self, request: preference_v1.GetQueueRequest) -> preference_v1.GetQueueResponse:
        """The progress of a queue and, on request, the agreement of people in it. An unused queue is empty."""
        if not request.queue:
            raise InvalidArgument.at("queue", "must be set")
        now_us = self._context.now_us()
        async with self._context.store.reading() as tx:
            found = await tx.queue(request.queue, now_us, now_us - RECENT_US)
        return preference_v1.GetQueueResponse(
            **vars(found), alpha=await self._quality.agreement(request.queue) if request.with_agreement else None
        )

    async def stats(self) -> preference_v1.GetStatsResponse:
        """Counts over everything."""
        async with self._context.store.reading() as tx:
            found = await tx.stats()
        return preference_v1.GetStatsResponse(
            prompts=found.prompts,
            completions=found.completions,
            comparisons=found.judgements.get(preference_v1.TASK_KIND_COMPARISON, 0),
            rankings=found.judgements.get(preference_v1.TASK_KIND_RANKING, 0),
            ratings=found.judgements.get(preference_v1.TASK_KIND_RATING, 0),
            open_tasks=found.open_tasks,
            snapshots=found.snapshots,
            feedback=[
                preference_v1.FeedbackCount(
                    source=label,
                    split=preference_v1.Split.ValueType(split),
                    annotator_kind=preference_v1.AnnotatorKind.ValueType(kind),
                    count=count,
                )
                for (label, split, kind), count in found.feedback.items()
            ],
        )
