"""Prompts and imported preferences: stored in the preference service once, pinned by digest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import sha256

from accord.errors import FailedPrecondition
from accord.preference import v1 as preference_v1
from accord_controller.ledger import keys
from accord_controller.ledger.ledger import serialize_messages
from accord_controller.spec.files import read_feedback, read_prompts
from accord_controller.stages.context import StageContext

PROMPTS_PER_REQUEST = 1000


async def pin_prompts(context: StageContext) -> None:
    """Records the run's prompts and their snapshot."""
    if keys.PROMPTS in context.ledger:
        return
    source = context.spec.prompts
    wanted: set[str] = set()
    sources = set(source.sources)
    for path in source.files:
        prompts = await asyncio.to_thread(read_prompts, path)
        for start in range(0, len(prompts), PROMPTS_PER_REQUEST):
            stored = await context.client.preferences.create_prompts(prompts[start : start + PROMPTS_PER_REQUEST])
            wanted |= {prompt.prompt_id for prompt in stored}
            sources |= {prompt.source for prompt in stored}
    # An empty source cannot be used as a filter.
    choice = preference_v1.SnapshotFilter(sources=sorted(sources) if sources and "" not in sources else [])
    snapshot = await context.client.preferences.create_snapshot(preference_v1.SNAPSHOT_KIND_PROMPTS, choice)
    prompts = [
        record.prompt
        async for record in context.client.preferences.export_snapshot(snapshot.digest)
        if record.prompt.prompt_id in wanted
        or record.prompt.source in source.sources
        or not (source.files or source.sources)
    ]
    kept = _short_enough(prompts, source.max_characters)
    for split, name, advice in (
        (preference_v1.SPLIT_TRAIN, "training", "Add prompts"),
        (
            preference_v1.SPLIT_HELDOUT,
            "held-out",
            "About 1 prompt in 10 does, by its hash, and a run needs at least one. Add prompts: with 40, one is almost "
            "certain",
        ),
    ):
        if not any(prompt.split == split for prompt in kept):
            raise FailedPrecondition(
                f"None of the run's {len(kept)} prompts is in the {name} split. {advice}", reason="TOO_FEW_PROMPTS"
            )
    await context.recorder.record_entries(
        [
            await context.ledger.file_entry(keys.PROMPTS, preference_v1.Prompt, kept),
            context.ledger.message_entry(keys.PROMPT_SNAPSHOT, snapshot),
        ]
    )


async def import_feedback(context: StageContext) -> None:
    """Imports the preference files and records which feedback belongs to the run: a filter by source."""
    if keys.FEEDBACK in context.ledger or not context.spec.feedback.HasField("preferences"):
        return
    given = context.spec.feedback.preferences
    sources = set(given.sources)
    for path in given.files:
        records = await asyncio.to_thread(read_feedback, path)
        # Importing the same file again is the same call.
        content = sha256(serialize_messages(records)).hexdigest()
        await context.client.preferences.import_records(records, request_id=f"import-{content[:40]}")
        sources |= {record.source for record in records}
    await context.recorder.record(keys.FEEDBACK, preference_v1.SnapshotFilter(sources=sorted(sources)))


def _short_enough(prompts: Sequence[preference_v1.Prompt], most: int) -> list[preference_v1.Prompt]:
    """The prompts with at most `most` characters over all turns; 0 means all prompts."""
    return [
        prompt
        for prompt in prompts
        if not most or sum(len(message.content) for message in prompt.conversation.messages) <= most
    ]
