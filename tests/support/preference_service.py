"""What tests of the preference service share: a real server on port 0, with a clock that tests move."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Self

from accord.channel import open_channel
from accord.preference import v1 as preference_v1
from accord.types import v1 as types_v1
from accord_preference.service import build
from accord_preference.settings import PreferenceSettings
from accord_runtime.serving.server import serving


def request_id() -> str:
    """A request_id that no other call has, not even in a database of an earlier version."""
    return f"request-{uuid.uuid4()}"


def conversation(text: str) -> types_v1.Conversation:
    """A person says `text`."""
    return types_v1.Conversation(messages=[types_v1.ChatMessage(role="user", content=text)])


def person(name: str) -> preference_v1.Annotator:
    """A human annotator."""
    return preference_v1.Annotator(annotator_id=name, kind=preference_v1.ANNOTATOR_KIND_HUMAN)


def pair(number: int, source: str = "set", annotator: str = "ann") -> preference_v1.ImportRecord:
    """Prompt `number` with a good and a bad answer, the good one chosen."""
    return preference_v1.ImportRecord(
        prompt=conversation(f"question {number}"),
        completions=[
            preference_v1.ImportCompletion(local_id="a", text=f"good answer {number}"),
            preference_v1.ImportCompletion(local_id="b", text=f"bad answer {number}"),
        ],
        comparison=preference_v1.Comparison(chosen_id="a", rejected_id="b"),
        annotator=person(annotator),
        source=source,
    )


@dataclass
class ServedPreferences:
    """A running service and what tests do with it all the time. `now`: the service's clock, seconds."""

    settings: PreferenceSettings
    now: float = 1_000_000.0
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> Self:
        self._stack = AsyncExitStack()
        service = await build(self.settings, clock=lambda: self.now)
        self.address = await self._stack.enter_async_context(serving(service, self.settings))
        channel = await self._stack.enter_async_context(open_channel(self.address))
        self.stub = preference_v1.PreferenceServiceStub(channel)
        self.annotators = preference_v1.AnnotatorServiceStub(channel)
        return self

    async def stop(self) -> None:
        await self._stack.aclose()

    async def prompt(self, text: str, source: str = "") -> preference_v1.Prompt:
        return (await self.prompts([text], source))[0]

    async def prompts(self, texts: Iterable[str], source: str = "") -> list[preference_v1.Prompt]:
        new = [preference_v1.Prompt(conversation=conversation(text), source=source) for text in texts]
        request = preference_v1.CreatePromptsRequest(request_id=request_id(), prompts=new)
        return list((await self.stub.CreatePrompts(request, timeout=10)).prompts)

    async def answers(self, prompt: preference_v1.Prompt, *texts: str) -> list[str]:
        """The ids of new answers to `prompt`."""
        new = [preference_v1.Completion(prompt_id=prompt.prompt_id, text=text) for text in texts]
        request = preference_v1.CreateCompletionsRequest(request_id=request_id(), completions=new)
        return [one.completion_id for one in (await self.stub.CreateCompletions(request, timeout=10)).completions]

    async def task(self, text: str = "hello", *, redundancy: int = 1, queue: str = "q") -> preference_v1.Task:
        """A new comparison task of two answers to a new prompt."""
        prompt = await self.prompt(text)
        ids = await self.answers(prompt, f"{text} one", f"{text} two")
        task = preference_v1.Task(
            kind=preference_v1.TASK_KIND_COMPARISON,
            prompt_id=prompt.prompt_id,
            completion_ids=ids,
            redundancy=redundancy,
            queue=queue,
        )
        request = preference_v1.CreateTasksRequest(request_id=request_id(), tasks=[task])
        return (await self.stub.CreateTasks(request, timeout=10)).tasks[0]

    async def lease(self, name: str, *, seconds: int = 60, queue: str = "q") -> preference_v1.TaskLease | None:
        request = preference_v1.LeaseTaskRequest(request_id=request_id(), annotator=person(name), queue=queue)
        request.ttl.FromSeconds(seconds)
        response = await self.stub.LeaseTask(request, timeout=30)
        return response.lease if response.HasField("lease") else None

    async def answer(self, lease: preference_v1.TaskLease, name: str, *, best: int = 0) -> preference_v1.Feedback:
        """Prefers the completion at `best` of a leased comparison."""
        ids = lease.task.completion_ids
        feedback = preference_v1.Feedback(
            prompt_id=lease.prompt.prompt_id,
            annotator=person(name),
            comparison=preference_v1.Comparison(chosen_id=ids[best], rejected_id=ids[1 - best]),
            task_id=lease.task.task_id,
        )
        return await self.submit(feedback, lease_id=lease.lease_id)

    async def submit(self, feedback: preference_v1.Feedback, lease_id: str = "") -> preference_v1.Feedback:
        request = preference_v1.SubmitFeedbackRequest(request_id=request_id(), feedback=feedback, lease_id=lease_id)
        return (await self.stub.SubmitFeedback(request, timeout=10)).feedback

    async def load(
        self, records: Iterable[preference_v1.ImportRecord], *, name: str = "", size: int = 100
    ) -> preference_v1.ImportRecordsResponse:
        """Imports records in messages of `size`."""
        all_records, first = list(records), name or request_id()

        async def stream() -> AsyncIterator[preference_v1.ImportRecordsRequest]:
            yield preference_v1.ImportRecordsRequest(request_id=first)
            for start in range(0, len(all_records), size):
                yield preference_v1.ImportRecordsRequest(records=all_records[start : start + size])

        return await self.stub.ImportRecords(stream(), timeout=60)

    async def snapshot(
        self, kind: preference_v1.SnapshotKind.ValueType = preference_v1.SNAPSHOT_KIND_PREFERENCES, **filters: list[str]
    ) -> preference_v1.Snapshot:
        request = preference_v1.CreateSnapshotRequest(
            request_id=request_id(),
            kind=kind,
            filter=preference_v1.SnapshotFilter(**filters),  # type: ignore[arg-type]
        )
        return (await self.stub.CreateSnapshot(request, timeout=30)).snapshot

    async def export(self, digest: str, split: int = 0) -> list[preference_v1.Record]:
        request = preference_v1.ExportSnapshotRequest(digest=digest, split=preference_v1.Split.ValueType(split))
        return [record async for page in self.stub.ExportSnapshot(request, timeout=60) for record in page.records]

    async def stats(self) -> preference_v1.GetStatsResponse:
        return await self.stub.GetStats(preference_v1.GetStatsRequest(), timeout=10)
