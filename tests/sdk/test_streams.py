"""Streams that break go on where they were: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.sdk import FAST, PATIENT, SAMPLING, Engine, asked, collect, port_of, sample, serve

import accord
from accord import errors
from accord.controller import v1 as controller_v1
from accord.preference import v1 as preference_v1
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1

ADD = rollout_v1.add_RolloutServiceServicer_to_server


def indices(responses: list[rollout_v1.GenerateResponse]) -> list[int]:
    return [response.sample.index for response in responses]


async def test_generate_asks_only_for_what_is_missing_after_a_break() -> None:
    class Breaking(Engine):
        async def answer(self, request, call):  # type: ignore[no-untyped-def]
            for index in asked(request)[::-1]:
                yield sample(request, index)
                if index in (3, 1):
                    raise errors.Unavailable("draining", reason="DRAINING")

    engine = Breaking()
    async with serve(ADD, engine) as address, accord.Client(rollout=address, retry=FAST) as client:
        responses = await collect(client.rollout.generate(["a", "b"], sampling=SAMPLING, n=2), [])
    assert indices(responses) == [3, 2, 1, 0]
    assert [list(request.indices) for request in engine.requests] == [[], [0, 1, 2], [0]]
    assert len({request.request_id for request in engine.requests}) == 1
    assert [prompt.conversation.messages[0].content for prompt in engine.requests[2].prompts] == ["a", "b"]


async def test_generate_survives_the_death_of_the_service() -> None:
    class Stuck(Engine):
        async def answer(self, request, call):  # type: ignore[no-untyped-def]
            yield sample(request, 1)
            await asyncio.sleep(60)

    second = Engine()
    async with serve(ADD, Stuck()) as address:
        client = accord.Client(rollout=address, retry=PATIENT)
        stream = client.rollout.generate(["a", "b", "c"], sampling=SAMPLING)
        first = await anext(stream)
    async with serve(ADD, second, port_of(address)):
        rest = await collect(stream, [])
    await client.close()
    assert indices([first, *rest]) == [1, 0, 2]
    assert [list(request.indices) for request in second.requests] == [[0, 2]]


async def test_generate_drops_doubles() -> None:
    class Doubling(Engine):
        async def answer(self, request, call):  # type: ignore[no-untyped-def]
            for index in (0, 0, 1, 0, 1):
                yield sample(request, index)
                if call == 1 and index == 1:
                    raise errors.Unavailable("draining")

    async with serve(ADD, Doubling()) as address, accord.Client(rollout=address, retry=FAST) as client:
        assert indices(await collect(client.rollout.generate(["a"], sampling=SAMPLING, n=2), [])) == [0, 1]


async def test_generate_asks_again_when_a_stream_ends_too_early_and_says_so_in_the_end() -> None:
    class Forgetful(Engine):
        async def answer(self, request, call):  # type: ignore[no-untyped-def]
            for index in asked(request):
                if index != 1:
                    yield sample(request, index)

    engine = Forgetful()
    responses: list[rollout_v1.GenerateResponse] = []
    async with serve(ADD, engine) as address, accord.Client(rollout=address, retry=FAST) as client:
        with pytest.raises(errors.Unavailable, match="without 1 of 3") as raised:
            await collect(client.rollout.generate(["a", "b", "c"], sampling=SAMPLING), responses)
    assert raised.value.reason == "STREAM_INCOMPLETE"
    assert indices(responses) == [0, 2]
    assert list(engine.requests[-1].indices) == [1]


async def test_generate_gives_a_failure_as_a_failure_and_does_not_repeat_it() -> None:
    class Failing(Engine):
        async def answer(self, request, call):  # type: ignore[no-untyped-def]
            yield sample(request, 0)
            failure = types_v1.Failure(reason="PROMPT_TOO_LONG", message="9 of 8 tokens")
            yield rollout_v1.GenerateResponse(
                failure=rollout_v1.SampleFailure(request_id=request.request_id, index=1, failure=failure)
            )

    engine = Failing()
    async with serve(ADD, engine) as address, accord.Client(rollout=address, retry=FAST) as client:
        responses = await collect(client.rollout.generate(["a", "b"], sampling=SAMPLING), [])
    assert [response.WhichOneof("result") for response in responses] == ["sample", "failure"]
    assert responses[1].failure.failure.reason == "PROMPT_TOO_LONG"
    assert len(engine.requests) == 1


async def test_generate_refuses_a_sample_that_was_not_asked_for() -> None:
    class Wild(Engine):
        async def answer(self, request, call):  # type: ignore[no-untyped-def]
            yield sample(request, 7)

    async with serve(ADD, Wild()) as address, accord.Client(rollout=address, retry=FAST) as client:
        with pytest.raises(errors.Internal, match="index 7") as raised:
            await collect(client.rollout.generate(["a"], sampling=SAMPLING), [])
    assert raised.value.reason == "UNEXPECTED_SAMPLE"


async def test_leaving_a_stream_early_cancels_the_call() -> None:
    class Endless(Engine):
        async def answer(self, request, call):  # type: ignore[no-untyped-def]
            try:
                yield sample(request, 0)
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise

    engine = Endless()
    async with serve(ADD, engine) as address, accord.Client(rollout=address, retry=FAST) as client:
        stream = client.rollout.generate(["a", "b"], sampling=SAMPLING)
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        await asyncio.wait_for(engine.cancelled.wait(), 5)


class Watched(controller_v1.RunServiceServicer):
    """Has 5 events, breaks every stream after two, and sends the last one it sent again."""

    __abstractmethods__ = frozenset()

    async def WatchRun(self, request, context):  # type: ignore[no-untyped-def]
        start = max(request.after_sequence, 1)
        for sequence in range(start, min(start + 3, 6)):
            yield controller_v1.WatchRunResponse(event=controller_v1.RunEvent(sequence=sequence, kind="step"))
        if start + 3 < 6:
            raise errors.Unavailable("draining")

    async def ListEvents(self, request, context):  # type: ignore[no-untyped-def]
        more = range(request.after_sequence + 1, min(request.after_sequence + 3, 6))
        return controller_v1.ListEventsResponse(events=[controller_v1.RunEvent(sequence=i) for i in more])

    async def ListRuns(self, request, context):  # type: ignore[no-untyped-def]
        page = int(request.page_token or 0)
        runs = [controller_v1.Run(run_id=f"run-{page}-{i}") for i in range(2)]
        return controller_v1.ListRunsResponse(runs=runs, next_page_token=str(page + 1) if page < 2 else "")


async def test_watch_goes_on_after_breaks_with_each_event_once() -> None:
    add = controller_v1.add_RunServiceServicer_to_server
    async with serve(add, Watched()) as address, accord.Client(controller=address, retry=FAST) as client:
        assert [event.sequence async for event in client.runs.watch("demo")] == [1, 2, 3, 4, 5]
        assert [event.sequence async for event in client.runs.watch("demo", after_sequence=3)] == [4, 5]
        assert [event.sequence async for event in client.runs.events("demo", after_sequence=1)] == [2, 3, 4, 5]


async def test_lists_go_through_all_pages() -> None:
    add = controller_v1.add_RunServiceServicer_to_server
    async with serve(add, Watched()) as address, accord.Client(controller=address, retry=FAST) as client:
        names = [run.run_id async for run in client.runs.list()]
    assert names == [f"run-{page}-{i}" for page in range(3) for i in range(2)]


class Exporting(preference_v1.PreferenceServiceServicer):
    """Streams 4 records in two messages; breaks the first stream after the first message."""

    __abstractmethods__ = frozenset()
    calls = 0

    async def _records(self, response):  # type: ignore[no-untyped-def]
        self.calls += 1
        for start in (0, 2):
            prompts = [preference_v1.Prompt(prompt_id=f"p{start + i}") for i in range(2)]
            yield response(records=[preference_v1.Record(prompt=prompt) for prompt in prompts])
            if self.calls == 1:
                raise errors.Unavailable("draining", reason="DRAINING")

    async def ExportSnapshot(self, request, context):  # type: ignore[no-untyped-def]
        async for response in self._records(preference_v1.ExportSnapshotResponse):
            yield response

    async def ExportRecords(self, request, context):  # type: ignore[no-untyped-def]
        async for response in self._records(preference_v1.ExportRecordsResponse):
            yield response


async def test_a_snapshots_export_goes_on_but_a_changing_selections_does_not() -> None:
    add = preference_v1.add_PreferenceServiceServicer_to_server
    async with serve(add, Exporting()) as address, accord.Client(preference=address, retry=FAST) as client:
        records = [record.prompt.prompt_id async for record in client.preferences.export_snapshot("digest")]
    assert records == ["p0", "p1", "p2", "p3"]
    came: list[preference_v1.Record] = []
    async with serve(add, Exporting()) as address, accord.Client(preference=address, retry=FAST) as client:
        with pytest.raises(errors.Unavailable):
            await collect(client.preferences.export_records(preference_v1.SNAPSHOT_KIND_PROMPTS), came)
    assert [record.prompt.prompt_id for record in came] == ["p0", "p1"]
