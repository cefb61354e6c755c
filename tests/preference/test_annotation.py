"""Annotation tasks: who gets which, leases that end, late answers, what a wrong answer is told."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from tests.support.preference_service import Desk, person, request_id

from accord.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from accord.preference import v1 as preference_v1

pytestmark = pytest.mark.process


async def queue(desk: Desk, name: str = "q") -> preference_v1.GetQueueResponse:
    return await desk.stub.GetQueue(preference_v1.GetQueueRequest(queue=name), timeout=10)


async def release(desk: Desk, lease_id: str) -> None:
    request = preference_v1.ReleaseTaskRequest(request_id=request_id(), lease_id=lease_id)
    await desk.stub.ReleaseTask(request, timeout=10)


async def test_fifty_annotators_at_once_never_exceed_redundancy(desk: Desk) -> None:
    for number in range(10):
        await desk.task(f"task {number}", redundancy=3)
    leases = await asyncio.gather(*(desk.lease(f"ann-{number}") for number in range(50)))
    held = Counter(lease.task.task_id for lease in leases if lease is not None)
    assert len(held) == 10
    assert set(held.values()) == {3}
    assert sum(lease is None for lease in leases) == 20
    assert (await queue(desk)).leased_tasks == 10


async def test_tasks_are_handed_out_oldest_first_with_everything_to_see(desk: Desk) -> None:
    old, new = await desk.task("old"), await desk.task("new")
    first, second = await desk.lease("ann"), await desk.lease("ann")
    assert first is not None
    assert second is not None
    assert (first.task.task_id, second.task.task_id) == (old.task_id, new.task_id)
    assert first.prompt.conversation.messages[0].content == "old"
    assert [answer.text for answer in first.completions] == ["old one", "old two"]
    assert first.expire_time.seconds == int(desk.now) + 60


async def test_lease_that_expires_returns_the_task_to_the_next_who_asks(desk: Desk) -> None:
    await desk.task()
    assert await desk.lease("slow", seconds=60) is not None
    assert await desk.lease("next") is None
    desk.now += 61
    lease = await desk.lease("next")
    assert lease is not None


async def test_nobody_gets_a_task_twice(desk: Desk) -> None:
    await desk.task(redundancy=2)
    lease = await desk.lease("ann")
    assert lease is not None
    assert await desk.lease("ann") is None  # held
    await desk.answer(lease, "ann")
    desk.now += 1000
    assert await desk.lease("ann") is None  # answered
    assert await desk.lease("bob") is not None


async def test_skipped_task_goes_to_others_at_once_and_to_the_skipper_last(desk: Desk) -> None:
    skipped, other = await desk.task("skipped"), await desk.task("other")
    lease = await desk.lease("ann")
    assert lease is not None
    assert lease.task.task_id == skipped.task_id
    await release(desk, lease.lease_id)
    following = await desk.lease("ann")
    assert following is not None
    assert following.task.task_id == other.task_id
    bobs = await desk.lease("bob")
    assert bobs is not None
    assert bobs.task.task_id == skipped.task_id
    await release(desk, bobs.lease_id)
    again = await desk.lease("ann")
    assert again is not None
    assert again.task.task_id == skipped.task_id


async def test_answer_closes_the_task_and_is_counted(desk: Desk) -> None:
    task = await desk.task()
    lease = await desk.lease("ann")
    assert lease is not None
    feedback = await desk.answer(lease, "ann")
    assert feedback.task_id == task.task_id
    assert not feedback.late
    assert feedback.create_time.seconds == int(desk.now)
    counts = await queue(desk)
    assert (counts.open_tasks, counts.done_tasks, counts.leased_tasks, counts.feedback) == (0, 1, 0, 1)


async def test_late_answer_is_kept_and_marked(desk: Desk) -> None:
    await desk.task()
    slow = await desk.lease("slow", seconds=60)
    assert slow is not None
    desk.now += 61
    quick = await desk.lease("quick")
    assert quick is not None
    assert not (await desk.answer(quick, "quick")).late
    assert (await desk.answer(slow, "slow")).late
    assert (await queue(desk)).feedback == 2


async def test_answer_after_cancellation_is_kept_as_late(desk: Desk) -> None:
    await desk.task()
    await desk.task("second")
    lease = await desk.lease("ann")
    assert lease is not None
    request = preference_v1.CancelTasksRequest(request_id="c", queue="q")
    assert (await desk.stub.CancelTasks(request, timeout=10)).cancelled == 2
    assert await desk.lease("bob") is None
    assert (await desk.answer(lease, "ann")).late
    counts = await queue(desk)
    assert (counts.cancelled_tasks, counts.open_tasks, counts.feedback) == (2, 0, 1)


async def test_same_answer_again_is_the_same_feedback_and_another_is_refused(desk: Desk) -> None:
    await desk.task(redundancy=2)
    lease = await desk.lease("ann")
    assert lease is not None
    first = await desk.answer(lease, "ann")
    assert await desk.answer(lease, "ann") == first
    with pytest.raises(AlreadyExists) as caught:
        await desk.answer(lease, "ann", best=1)
    assert caught.value.reason == "TASK_ANSWERED"
    assert (await queue(desk)).feedback == 1
    assert (await queue(desk)).open_tasks == 1  # one of two has answered


async def test_lease_of_another_annotator_is_refused(desk: Desk) -> None:
    await desk.task()
    lease = await desk.lease("ann")
    assert lease is not None
    with pytest.raises(FailedPrecondition) as caught:
        await desk.answer(lease, "bob")
    assert caught.value.reason == "LEASE_MISMATCH"


async def test_lease_of_an_annotator_of_another_kind_is_refused(desk: Desk) -> None:
    await desk.task()
    lease = await desk.lease("ann")
    assert lease is not None
    ids = lease.task.completion_ids
    feedback = preference_v1.Feedback(
        prompt_id=lease.prompt.prompt_id,
        annotator=preference_v1.Annotator(annotator_id="ann", kind=preference_v1.ANNOTATOR_KIND_SIMULATED),
        comparison=preference_v1.Comparison(chosen_id=ids[0], rejected_id=ids[1]),
        task_id=lease.task.task_id,
    )
    with pytest.raises(FailedPrecondition) as caught:
        await desk.submit(feedback, lease_id=lease.lease_id)
    assert caught.value.reason == "LEASE_MISMATCH"


async def test_answer_to_a_task_without_lease_is_refused(desk: Desk) -> None:
    await desk.task()
    lease = await desk.lease("ann")
    assert lease is not None
    lease.lease_id = ""
    with pytest.raises(InvalidArgument, match="lease_id"):
        await desk.answer(lease, "ann")
    lease.lease_id = "forged"
    with pytest.raises(NotFound, match="forged"):
        await desk.answer(lease, "ann")


async def test_half_ranking_of_a_task_is_refused_naming_what_is_missing(desk: Desk) -> None:
    prompt = await desk.prompt("hello")
    ids = await desk.answers(prompt, "a", "b", "c")
    task = preference_v1.Task(
        kind=preference_v1.TASK_KIND_RANKING, prompt_id=prompt.prompt_id, completion_ids=ids, queue="q"
    )
    await desk.stub.CreateTasks(preference_v1.CreateTasksRequest(request_id="t", tasks=[task]), timeout=10)
    lease = await desk.lease("ann")
    assert lease is not None

    async def rank(*names: str) -> preference_v1.Feedback:
        ranks = [preference_v1.Rank(completion_ids=[name]) for name in names]
        feedback = preference_v1.Feedback(
            prompt_id=prompt.prompt_id,
            annotator=person("ann"),
            ranking=preference_v1.Ranking(ranks=ranks),
            task_id=lease.task.task_id,
        )
        return await desk.submit(feedback, lease.lease_id)

    with pytest.raises(InvalidArgument, match=ids[1]) as caught:
        await rank(ids[2], ids[0])
    assert caught.value.violations[0].field == "feedback.ranking"
    (foreign,) = await desk.answers(prompt, "d")
    with pytest.raises(InvalidArgument, match="not in the task"):
        await rank(*ids, foreign)
    assert [rank.completion_ids[0] for rank in (await rank(*ids)).ranking.ranks] == ids


async def test_answer_of_another_kind_than_asked_is_refused(desk: Desk) -> None:
    await desk.task()
    lease = await desk.lease("ann")
    assert lease is not None
    rating = preference_v1.Rating(completion_id=lease.task.completion_ids[0], value=1)
    feedback = preference_v1.Feedback(
        prompt_id=lease.prompt.prompt_id, annotator=person("ann"), rating=rating, task_id=lease.task.task_id
    )
    with pytest.raises(InvalidArgument, match="asks for a comparison"):
        await desk.submit(feedback, lease.lease_id)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kind": 9}, "tasks[1].kind"),
        ({"completion_ids": ["one"]}, "tasks[1].completion_ids"),
        ({"completion_ids": ["one", "one"]}, "tasks[1].completion_ids[1]"),
        ({"completion_ids": ["one", "foreign"]}, "tasks[1].completion_ids[1]"),
        ({"redundancy": -1}, "tasks[1].redundancy"),
    ],
)
async def test_one_wrong_task_opens_none(desk: Desk, change: dict[str, object], field: str) -> None:
    prompt = await desk.prompt("hello")
    one, two = await desk.answers(prompt, "one", "two")
    (foreign,) = await desk.answers(await desk.prompt("other"), "x")
    known = {"one": one, "two": two, "foreign": foreign}
    good: dict[str, object] = {
        "kind": preference_v1.TASK_KIND_COMPARISON,
        "prompt_id": prompt.prompt_id,
        "completion_ids": ["one", "two"],
        "queue": "q",
    }
    tasks = []
    for values in (good, good | change):
        names = [known[str(name)] for name in values["completion_ids"]]  # type: ignore[attr-defined]
        tasks.append(preference_v1.Task(**(values | {"completion_ids": names})))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument) as caught:
        await desk.stub.CreateTasks(preference_v1.CreateTasksRequest(request_id="t", tasks=tasks), timeout=10)
    assert caught.value.violations[0].field == field
    assert (await queue(desk)).open_tasks == 0


@pytest.mark.parametrize("seconds", [0, -5, 10**9])
async def test_senseless_lease_time_is_refused(desk: Desk, seconds: int) -> None:
    await desk.task()
    with pytest.raises(InvalidArgument, match="ttl"):
        await desk.lease("ann", seconds=seconds)


async def test_asking_again_after_nothing_was_open_can_find_something(desk: Desk) -> None:
    request = preference_v1.LeaseTaskRequest(request_id="poll", annotator=person("ann"), queue="q")
    assert not (await desk.stub.LeaseTask(request, timeout=10)).HasField("lease")
    await desk.task()
    assert (await desk.stub.LeaseTask(request, timeout=10)).HasField("lease")
