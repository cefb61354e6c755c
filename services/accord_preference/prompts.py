"""Adds, lists and deletes prompts and completions, and has the checks that other parts use."""

from __future__ import annotations

from accord.errors import FailedPrecondition, InvalidArgument
from accord.preference import v1 as preference_v1
from accord_preference import converters
from accord_preference.context import Context, not_found
from accord_preference.storage.store import CompletionRow, PromptRow, Reader, Writer
from accord_runtime.serving.paging import read_page


class Prompts:
    """The part of the service that manages prompts and their completions."""

    def __init__(self, context: Context):
        self._context = context

    async def create(self, request: preference_v1.CreatePromptsRequest) -> preference_v1.CreatePromptsResponse:
        """Adds prompts, all or none. Existing prompts are returned unchanged."""
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

    async def page(self, request: preference_v1.ListPromptsRequest) -> preference_v1.ListPromptsResponse:
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
        """Adds completions, all or none."""
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
                    raise not_found("prompt", row.prompt_id, f"completions[{index}].prompt_id")
            await tx.add_completions(new)
            return preference_v1.CreateCompletionsResponse(completions=[converters.completion(row) for row in new])

        return await self._context.once.run(
            request.request_id, request, preference_v1.CreateCompletionsResponse, change
        )

    async def get_completion(self, request: preference_v1.GetCompletionRequest) -> preference_v1.GetCompletionResponse:
        """One completion with its prompt."""
        async with self._context.store.reading() as tx:
            found = (await tx.completions([request.completion_id])).get(request.completion_id)
            if found is None:
                raise not_found("completion", request.completion_id, "completion_id")
            prompts = await tx.prompts([found.prompt_id])
        return preference_v1.GetCompletionResponse(
            completion=converters.completion(found), prompt=converters.prompt(prompts[found.prompt_id])
        )

    async def delete(self, request: preference_v1.DeletePromptsRequest) -> preference_v1.DeletePromptsResponse:
        """Deletes prompts, all or none."""

        async def change(tx: Writer) -> preference_v1.DeletePromptsResponse:
            known = await tx.prompts(request.prompt_ids)
            for index, name in enumerate(request.prompt_ids):
                if name not in known:
                    raise not_found("prompt", name, f"prompt_ids[{index}]")
            deleted, cancelled = await tx.delete_prompts(request.prompt_ids, self._context.now_us())
            return preference_v1.DeletePromptsResponse(deleted=deleted, cancelled_tasks=cancelled)

        return await self._context.once.run(request.request_id, request, preference_v1.DeletePromptsResponse, change)


def check_split(split: int) -> int:
    """The split of a filter; 0 for both. InvalidArgument if it does not exist."""
    if split not in (preference_v1.SPLIT_UNSPECIFIED, preference_v1.SPLIT_TRAIN, preference_v1.SPLIT_HELDOUT):
        raise InvalidArgument.at("split", f"is {split}; must be SPLIT_TRAIN, SPLIT_HELDOUT, or unset for both")
    return split


def check_size(text: str, most: int, path: str) -> None:
    """InvalidArgument, TEXT_TOO_LONG, for a text of more than `most` bytes of UTF-8."""
    if len(text) * 4 > most and (size := len(text.encode())) > most:
        raise InvalidArgument.at(
            path,
            f"has {size:,} bytes; at most {most:,} are accepted. Shorten it, or raise max_text_bytes of the service",
            reason="TEXT_TOO_LONG",
        )


async def find_judged(
    tx: Reader, prompt_id: str, fields: dict[str, str], prompt_field: str
) -> tuple[PromptRow, dict[str, CompletionRow]]:
    """A prompt and its completions in `fields` (completion id -> field of the request).

    NotFound names a missing prompt or completion, InvalidArgument a completion of another prompt. FailedPrecondition,
    PROMPT_DELETED: feedback on this prompt is no longer accepted.
    """
    prompt = (await tx.prompts([prompt_id])).get(prompt_id)
    if prompt is None:
        raise not_found("prompt", prompt_id, prompt_field)
    if await tx.deleted([prompt_id]):
        raise FailedPrecondition(
            f"{prompt_field}: prompt {prompt_id} was deleted, and feedback on it is no longer accepted",
            reason="PROMPT_DELETED",
            metadata={"prompt_id": prompt_id},
        )
    found = await tx.completions(list(fields))
    for name, field in fields.items():
        if name not in found:
            raise not_found("completion", name, field)
        if found[name].prompt_id != prompt_id:
            raise InvalidArgument.at(field, f"{name} is a completion of another prompt ({found[name].prompt_id})")
    return prompt, found
