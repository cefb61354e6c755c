"""What the preference service does, one method an RPC; its parts are in files of their own."""

from __future__ import annotations

from collections.abc import Callable

from accord.preference import v1 as preference_v1
from accord_preference import converters
from accord_preference.annotators import Annotators
from accord_preference.context import Context, check_size, check_split, unknown
from accord_preference.datasets.snapshots import Snapshots
from accord_preference.feedback.feedback import Feedback
from accord_preference.feedback.imports import Imports
from accord_preference.quality.quality import Quality
from accord_preference.settings import PreferenceSettings
from accord_preference.storage.store import Store, Writer
from accord_preference.tasks.flags import Flags
from accord_preference.tasks.tasks import Tasks
from accord_runtime.serving.paging import read_page


class Prompts:
    """Prompts, completions and statistics; `tasks`, `flagging`, `judging`, `annotators`, `importing`, `snapshots`,
    `quality` do the rest."""

    def __init__(self, store: Store, settings: PreferenceSettings, clock: Callable[[], float]):
        self._context = Context(store, settings, clock)
        self.tasks = Tasks(self._context)
        self.flagging = Flags(self._context)
        self.judging = Feedback(self._context)
        self.annotators = Annotators(self._context)
        self.importing = Imports(self._context)
        self.snapshots = Snapshots(self._context)
        self.quality = Quality(self._context)

    async def create_prompts(self, request: preference_v1.CreatePromptsRequest) -> preference_v1.CreatePromptsResponse:
        """Adds prompts, all or none; ones that exist are returned as they are."""
        settings = self._context.settings
        for number, asked in enumerate(request.prompts):
            for turn, message in enumerate(asked.conversation.messages):
                path = f"prompts[{number}].conversation.messages[{turn}].content"
                check_size(message.content, settings.max_text_bytes, path)
        new = [
            converters.prompt_row(
                item.conversation,
                item.source,
                f"prompts[{index}].conversation",
                settings.heldout_fraction,
                settings.split_salt,
            )
            for index, item in enumerate(request.prompts)
        ]

        async def change(tx: Writer) -> preference_v1.CreatePromptsResponse:
            await tx.add_prompts(new)
            kept = await tx.prompts([row.prompt_id for row in new])
            return preference_v1.CreatePromptsResponse(prompts=[converters.prompt(kept[row.prompt_id]) for row in new])

        return await self._context.once.run(request.request_id, request, preference_v1.CreatePromptsResponse, change)

    async def list_prompts(self, request: preference_v1.ListPromptsRequest) -> preference_v1.ListPromptsResponse:
        """One page of prompts, by id."""
        split, source = check_split(request.split), request.source
        page = read_page(request, "", "prompts", split, source, default=1000)
        async with self._context.store.reading() as tx:
            found = await tx.list_prompts(page.after, page.size + 1, split, source)
        rows, token = page.cut(found, lambda row: row.prompt_id)
        return preference_v1.ListPromptsResponse(
            prompts=[converters.prompt(row) for row in rows], next_page_token=token
        )

    async def create_completions(
        self, request: preference_v1.CreateCompletionsRequest
    ) -> preference_v1.CreateCompletionsResponse:
        """Adds answers to prompts, all or none."""
        for index, item in enumerate(request.completions):
            check_size(item.text, self._context.settings.max_text_bytes, f"completions[{index}].text")
        new = [
            converters.completion_row(item.prompt_id, item, f"completions[{index}]")
            for index, item in enumerate(request.completions)
        ]

        async def change(tx: Writer) -> preference_v1.CreateCompletionsResponse:
            prompts = await tx.prompts([row.prompt_id for row in new])
            for index, row in enumerate(new):
                if row.prompt_id not in prompts:
                    raise unknown("prompt", row.prompt_id, f"completions[{index}].prompt_id")
            await tx.add_completions(new)
            return preference_v1.CreateCompletionsResponse(completions=[converters.completion(row) for row in new])

        return await self._context.once.run(
            request.request_id, request, preference_v1.CreateCompletionsResponse, change
        )

    async def get_completion(self, request: preference_v1.GetCompletionRequest) -> preference_v1.GetCompletionResponse:
        """One answer with its prompt."""
        async with self._context.store.reading() as tx:
            found = (await tx.completions([request.completion_id])).get(request.completion_id)
            if found is None:
                raise unknown("completion", request.completion_id, "completion_id")
            prompts = await tx.prompts([found.prompt_id])
        return preference_v1.GetCompletionResponse(
            completion=converters.completion(found), prompt=converters.prompt(prompts[found.prompt_id])
        )

    async def delete_prompts(self, request: preference_v1.DeletePromptsRequest) -> preference_v1.DeletePromptsResponse:
        """Withdraws prompts, all or none."""

        async def change(tx: Writer) -> preference_v1.DeletePromptsResponse:
            known = await tx.prompts(request.prompt_ids)
            for index, name in enumerate(request.prompt_ids):
                if name not in known:
                    raise unknown("prompt", name, f"prompt_ids[{index}]")
            deleted, cancelled = await tx.delete_prompts(request.prompt_ids, self._context.now_us())
            return preference_v1.DeletePromptsResponse(deleted=deleted, cancelled_tasks=cancelled)

        return await self._context.once.run(request.request_id, request, preference_v1.DeletePromptsResponse, change)

    async def get_queue(self, request: preference_v1.GetQueueRequest) -> preference_v1.GetQueueResponse:
        """How far a queue is, and, where asked, how well people agree in it."""
        found = await self.tasks.queue(request)
        if request.with_agreement:
            alpha = await self.quality.agreement(request.queue)
            if alpha is not None:
                found.alpha = alpha
        return found

    async def get_stats(self) -> preference_v1.GetStatsResponse:
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
