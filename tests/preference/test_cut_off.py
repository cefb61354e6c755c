"""An answer that was cut off is known as such, from whoever stores it to whoever learns from it."""

from __future__ import annotations

import pytest
from tests.support.preference_service import Desk, pair, request_id

from accord.errors import InvalidArgument
from accord.formats import from_record
from accord.preference import v1 as preference_v1
from accord.types import v1 as types_v1

pytestmark = pytest.mark.process

LENGTH, STOP = types_v1.FINISH_REASON_LENGTH, types_v1.FINISH_REASON_STOP


async def answers(desk: Desk, *ends: int) -> list[preference_v1.Completion]:
    """The same text to the same prompt, ended in these ways."""
    prompt = await desk.prompt("hello")
    new = [preference_v1.Completion(prompt_id=prompt.prompt_id, text="and then", finish_reason=end) for end in ends]  # type: ignore[arg-type]
    request = preference_v1.CreateCompletionsRequest(request_id=request_id(), completions=new)
    return list((await desk.stub.CreateCompletions(request, timeout=10)).completions)


async def test_why_an_answer_ended_is_kept_and_the_same_text_ended_otherwise_is_another_answer(desk: Desk) -> None:
    made = await answers(desk, 0, STOP, LENGTH)
    assert [answer.finish_reason for answer in made] == [0, STOP, LENGTH]
    assert len({answer.completion_id for answer in made}) == 3
    assert (await answers(desk, LENGTH))[0].completion_id == made[2].completion_id
    request = preference_v1.GetCompletionRequest(completion_id=made[2].completion_id)
    assert (await desk.stub.GetCompletion(request, timeout=10)).completion.finish_reason == LENGTH


async def test_annotators_and_snapshots_are_told(desk: Desk) -> None:
    made = await answers(desk, STOP, LENGTH)
    task = preference_v1.Task(
        kind=preference_v1.TASK_KIND_COMPARISON,
        prompt_id=made[0].prompt_id,
        completion_ids=[answer.completion_id for answer in made],
        queue="q",
    )
    await desk.stub.CreateTasks(preference_v1.CreateTasksRequest(request_id=request_id(), tasks=[task]), timeout=10)
    lease = await desk.lease("ann")
    assert lease is not None
    assert [answer.finish_reason for answer in lease.completions] == [STOP, LENGTH]
    await desk.answer(lease, "ann")
    [record] = await desk.export((await desk.snapshot()).digest)
    assert [answer.finish_reason for answer in record.completions] == [STOP, LENGTH]
    # What goes elsewhere says what was cut off, and nothing of the others.
    assert [answer.finish_reason for answer in from_record(record).completions] == [0, LENGTH]


async def test_the_digest_of_a_snapshot_is_another_where_an_answer_was_cut_off(desk: Desk, other_desk: Desk) -> None:
    await desk.load([pair(1)])
    cut = pair(1)
    cut.completions[1].finish_reason = LENGTH
    await other_desk.load([cut])
    one, other = await desk.snapshot(), await other_desk.snapshot()
    assert one.digest != other.digest
    [record] = await other_desk.export(other.digest)
    assert [answer.finish_reason for answer in record.completions] == [0, LENGTH]


async def test_an_end_that_there_is_not_is_refused_by_its_field(desk: Desk) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await answers(desk, STOP, 9)
    assert refused.value.violations[0].field == "completions[1].finish_reason"
    wrong = pair(2)
    wrong.completions[0].finish_reason = 9  # type: ignore[assignment]
    with pytest.raises(InvalidArgument) as refused:
        await desk.load([pair(1), wrong])
    assert refused.value.violations[0].field == "records[1].completions[0].finish_reason"
    assert (await desk.stats()).completions == 0
