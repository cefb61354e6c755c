"""Who judges: undo and corrections, gold, flags, exclusion and withdrawal, deleted prompts. History is never lost."""

from __future__ import annotations

import pytest
from tests.support.preference_service import Desk, pair, person, request_id

from accord.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from accord.preference import v1 as preference_v1

pytestmark = pytest.mark.process


async def retract(
    desk: Desk, feedback_id: str, name: str, *, again: bool = False
) -> preference_v1.RetractFeedbackResponse:
    request = preference_v1.RetractFeedbackRequest(
        request_id=request_id(), feedback_id=feedback_id, annotator=person(name), lease_again=again
    )
    return await desk.stub.RetractFeedback(request, timeout=10)


async def history(desk: Desk, **of: object) -> list[preference_v1.Feedback]:
    request = preference_v1.ListFeedbackRequest(**of)  # type: ignore[arg-type]
    return list((await desk.stub.ListFeedback(request, timeout=10)).feedback)


async def leased(desk: Desk, name: str) -> preference_v1.TaskLease:
    lease = await desk.lease(name)
    assert lease is not None
    return lease


async def test_undo_takes_the_answer_back_and_gives_the_task_again(desk: Desk) -> None:
    task = await desk.task()
    first = await desk.answer(await leased(desk, "ann"), "ann")
    frozen = await desk.snapshot()
    before = await desk.export(frozen.digest)
    undone = await retract(desk, first.feedback_id, "ann", again=True)
    assert undone.feedback.retracted
    assert undone.lease.task.task_id == task.task_id
    assert (await retract(desk, first.feedback_id, "ann")).feedback.retracted  # again: nothing more happens
    second = await desk.answer(undone.lease, "ann", best=1)
    assert second.supersedes == first.feedback_id
    kept = await history(desk, task_id=task.task_id)
    assert [one.feedback_id for one in kept] == [second.feedback_id, first.feedback_id]
    assert kept[1].superseded_by == second.feedback_id
    # What was frozen is the same to the byte; what is frozen now holds the new answer only.
    assert await desk.export(frozen.digest) == before
    [record] = await desk.export((await desk.snapshot()).digest)
    assert record.feedback.comparison.chosen_id == second.comparison.chosen_id


async def test_the_old_lease_of_an_answer_that_was_taken_back_answers_nothing(desk: Desk) -> None:
    await desk.task()
    lease = await leased(desk, "ann")
    first = await desk.answer(lease, "ann")
    await retract(desk, first.feedback_id, "ann")
    with pytest.raises(FailedPrecondition) as caught:
        await desk.answer(lease, "ann")
    assert caught.value.reason == "LEASE_USED"
    assert await desk.answer(await leased(desk, "ann"), "ann")


async def test_a_correction_names_what_it_corrects_and_only_the_newest_can_be_corrected(desk: Desk) -> None:
    task = await desk.task()
    first = await desk.answer(await leased(desk, "ann"), "ann")
    ids = task.completion_ids

    async def correct(which: str, name: str, **more: object) -> preference_v1.Feedback:
        feedback = preference_v1.Feedback(
            prompt_id=task.prompt_id,
            annotator=person(name),
            comparison=preference_v1.Comparison(chosen_id=ids[1], rejected_id=ids[0]),
            supersedes=which,
            **more,  # type: ignore[arg-type]
        )
        return await desk.submit(feedback)

    second = await correct(first.feedback_id, "ann", comment="looked again")
    assert (second.task_id, second.comment, second.elapsed) == (task.task_id, "looked again", first.elapsed)
    assert await correct(first.feedback_id, "ann", comment="looked again") == second
    with pytest.raises(FailedPrecondition) as caught:
        await correct(first.feedback_id, "ann", comment="and again")
    assert (caught.value.reason, caught.value.metadata["superseded_by"]) == ("FEEDBACK_SUPERSEDED", second.feedback_id)
    with pytest.raises(PermissionDenied):
        await correct(second.feedback_id, "bob")
    with pytest.raises(PermissionDenied):
        await retract(desk, second.feedback_id, "bob")
    with pytest.raises(NotFound):
        await correct("f" * 64, "ann")
    assert (await desk.snapshot()).train_records + (await desk.snapshot()).heldout_records == 1


async def test_criteria_stand_beside_the_choice_and_must_be_among_those_asked_for(desk: Desk) -> None:
    prompt = await desk.prompt("hello")
    ids = await desk.answers(prompt, "one", "two")
    task = preference_v1.Task(
        kind=preference_v1.TASK_KIND_COMPARISON,
        prompt_id=prompt.prompt_id,
        completion_ids=ids,
        queue="q",
        criteria=[preference_v1.Criterion(name="helpful"), preference_v1.Criterion(name="harmless", min=0, max=1)],
        instructions="Read twice.",
    )
    await desk.stub.CreateTasks(preference_v1.CreateTasksRequest(request_id="t", tasks=[task]), timeout=10)
    lease = await leased(desk, "ann")
    assert lease.task.instructions == "Read twice."
    assert [(one.name, one.min, one.max) for one in lease.task.criteria] == [("helpful", 1, 5), ("harmless", 0, 1)]

    async def answer(*criteria: preference_v1.Rating) -> preference_v1.Feedback:
        feedback = preference_v1.Feedback(
            prompt_id=prompt.prompt_id,
            annotator=person("ann"),
            comparison=preference_v1.Comparison(chosen_id=ids[0], rejected_id=ids[1]),
            task_id=lease.task.task_id,
            criteria=criteria,
        )
        return await desk.submit(feedback, lease.lease_id)

    def rated(criterion: str, number: int = 0, value: float = 4) -> preference_v1.Rating:
        return preference_v1.Rating(completion_id=ids[number], value=value, min=1, max=5, criterion=criterion)

    for wrong, said in (
        ([rated("pretty")], "asks for helpful, harmless"),
        ([rated("")], "must be set"),
        ([rated("helpful"), rated("helpful")], "again"),
        ([rated("helpful", value=6)], "scale"),
    ):
        with pytest.raises(InvalidArgument, match=said):
            await answer(*wrong)
    stored = await answer(rated("helpful", 1, 2), rated("helpful", 0, 5))
    assert {(one.completion_id, one.value) for one in stored.criteria} == {(ids[0], 5), (ids[1], 2)}
    [record] = await desk.export((await desk.snapshot()).digest)
    assert list(record.feedback.criteria) == list(stored.criteria)


async def test_a_gold_task_looks_like_any_other_and_stays_out_of_snapshots(desk: Desk) -> None:
    prompt = await desk.prompt("hello")
    ids = await desk.answers(prompt, "right", "wrong")
    gold = preference_v1.Task(
        kind=preference_v1.TASK_KIND_COMPARISON,
        prompt_id=prompt.prompt_id,
        completion_ids=ids,
        queue="q",
        gold=preference_v1.KnownAnswer(comparison=preference_v1.Comparison(chosen_id=ids[0], rejected_id=ids[1])),
    )
    made = await desk.stub.CreateTasks(preference_v1.CreateTasksRequest(request_id="g", tasks=[gold]), timeout=10)
    assert made.tasks[0].gold == gold.gold
    await desk.task("ordinary", redundancy=9)
    for name, best in (("ann", 0), ("bob", 0), ("cid", 1)):
        for _ in range(2):
            lease = await leased(desk, name)
            assert not lease.task.HasField("gold")
            assert lease.task.answers < max(1, lease.task.redundancy)
            await desk.answer(lease, name, best=best)
    queue = await desk.stub.GetQueue(preference_v1.GetQueueRequest(queue="q", with_agreement=True), timeout=10)
    assert (queue.gold_tasks, queue.open_tasks, queue.feedback, queue.wanted_feedback) == (1, 1, 3, 9)
    assert queue.alpha == pytest.approx(0.0)  # two against one on one pair: as by chance
    snapshot = await desk.snapshot()
    assert snapshot.train_records + snapshot.heldout_records == 3
    request = preference_v1.GetQualityRequest(queues=["q"])
    [kind] = (await desk.annotators.GetQuality(request, timeout=10)).kinds
    assert {one.annotator.annotator_id: one.gold_accuracy for one in kind.annotators} == {"ann": 1, "bob": 1, "cid": 0}


async def test_a_gold_task_whose_answer_does_not_answer_it_is_refused(desk: Desk) -> None:
    prompt = await desk.prompt("hello")
    ids = await desk.answers(prompt, "a", "b", "c")
    known = preference_v1.KnownAnswer(comparison=preference_v1.Comparison(chosen_id=ids[0], rejected_id=ids[2]))
    task = preference_v1.Task(
        kind=preference_v1.TASK_KIND_COMPARISON, prompt_id=prompt.prompt_id, completion_ids=ids[:2], gold=known
    )
    with pytest.raises(InvalidArgument, match=r"tasks\[0\].gold"):
        await desk.stub.CreateTasks(preference_v1.CreateTasksRequest(request_id="g", tasks=[task]), timeout=10)


async def test_a_task_that_two_flag_rests_until_it_is_resolved(desk: Desk) -> None:
    task = await desk.task(redundancy=5)

    async def flag(name: str, reason: int, comment: str = "") -> preference_v1.Task:
        lease = await leased(desk, name)
        request = preference_v1.FlagTaskRequest(
            request_id=request_id(),
            lease_id=lease.lease_id,
            reason=preference_v1.FlagReason.ValueType(reason),
            comment=comment,
        )
        return (await desk.stub.FlagTask(request, timeout=10)).task

    with pytest.raises(InvalidArgument, match="comment"):
        await flag("zoe", preference_v1.FLAG_REASON_OTHER)
    first = await flag("ann", preference_v1.FLAG_REASON_UNSAFE)
    assert (first.flags, first.state) == (1, preference_v1.TASK_STATE_OPEN)
    assert await desk.lease("ann") is None
    second = await flag("bob", preference_v1.FLAG_REASON_OTHER, "names my neighbour")
    assert second.state == preference_v1.TASK_STATE_FLAGGED
    assert await desk.lease("cid") is None
    listed = (await desk.stub.ListFlags(preference_v1.ListFlagsRequest(page_size=1), timeout=10)).flags
    assert [(one.annotator.annotator_id, one.comment) for one in listed] == [("bob", "names my neighbour")]

    async def resolve(resolution: preference_v1.TaskResolution.ValueType) -> preference_v1.Task:
        request = preference_v1.ResolveTaskRequest(request_id=request_id(), task_id=task.task_id, resolution=resolution)
        return (await desk.stub.ResolveTask(request, timeout=10)).task

    assert (await resolve(preference_v1.TASK_RESOLUTION_REOPEN)).state == preference_v1.TASK_STATE_OPEN
    assert await desk.lease("cid") is not None
    assert await desk.lease("ann") is None
    assert (await resolve(preference_v1.TASK_RESOLUTION_CANCEL)).state == preference_v1.TASK_STATE_CANCELLED
    with pytest.raises(FailedPrecondition):
        await resolve(preference_v1.TASK_RESOLUTION_REOPEN)


async def test_an_excluded_annotator_is_in_nothing_new_and_comes_back_whole(desk: Desk) -> None:
    await desk.load([pair(1, annotator="ann"), pair(2, annotator="bob")])
    both = await desk.snapshot()
    request = preference_v1.ExcludeAnnotatorRequest(request_id="x", annotator=person("bob"), reason="answers by chance")
    excluded = (await desk.annotators.ExcludeAnnotator(request, timeout=10)).profile
    assert (excluded.state, excluded.reason, excluded.feedback) == (
        preference_v1.ANNOTATOR_STATE_EXCLUDED,
        "answers by chance",
        1,
    )
    await desk.task()
    with pytest.raises(PermissionDenied) as caught:
        await desk.lease("bob")
    assert caught.value.reason == "ANNOTATOR_EXCLUDED"
    less = await desk.snapshot()
    assert [one.feedback.annotator.annotator_id for one in await desk.export(less.digest)] == ["ann"]
    assert len(await desk.export(both.digest)) == 2
    again = preference_v1.ReinstateAnnotatorRequest(request_id="y", annotator=person("bob"))
    await desk.annotators.ReinstateAnnotator(again, timeout=10)
    assert (await desk.snapshot()).digest == both.digest


async def test_a_withdrawn_annotator_learns_which_snapshots_hold_them(desk: Desk) -> None:
    await desk.load([pair(1, annotator="ann"), pair(2, annotator="bob")])
    both = await desk.snapshot()
    await desk.load([pair(3, source="other", annotator="ann")])
    await desk.snapshot(sources=["other"])
    request = preference_v1.WithdrawAnnotatorRequest(request_id="w", annotator=person("bob"))
    gone = await desk.annotators.WithdrawAnnotator(request, timeout=10)
    assert [(use.snapshot.digest, use.records) for use in gone.snapshots] == [(both.digest, 1)]
    again = preference_v1.ReinstateAnnotatorRequest(request_id="y", annotator=person("bob"))
    with pytest.raises(FailedPrecondition) as caught:
        await desk.annotators.ReinstateAnnotator(again, timeout=10)
    assert caught.value.reason == "ANNOTATOR_WITHDRAWN"
    # What they gave elsewhere and is imported later is not counted either.
    await desk.load([pair(4, annotator="bob")])
    names = {one.feedback.annotator.annotator_id for one in await desk.export((await desk.snapshot()).digest)}
    assert names == {"ann"}
    origins = await desk.stub.GetSnapshotOrigins(
        preference_v1.GetSnapshotOriginsRequest(digest=both.digest), timeout=10
    )
    assert [(one.annotator.annotator_id, one.records) for one in origins.annotators] == [("ann", 1), ("bob", 1)]


async def test_annotators_of_one_name_and_two_kinds_are_two(desk: Desk) -> None:
    program = preference_v1.Annotator(annotator_id="ann", kind=preference_v1.ANNOTATOR_KIND_SIMULATED)
    simulated = pair(2)
    simulated.annotator.CopyFrom(program)
    await desk.load([pair(1, annotator="ann"), simulated])
    await desk.annotators.ExcludeAnnotator(
        preference_v1.ExcludeAnnotatorRequest(request_id="x", annotator=program), timeout=10
    )
    kinds = {one.feedback.annotator.kind for one in await desk.export((await desk.snapshot()).digest)}
    assert kinds == {preference_v1.ANNOTATOR_KIND_HUMAN}
    page = await desk.annotators.ListAnnotators(preference_v1.ListAnnotatorsRequest(page_size=1), timeout=10)
    rest = await desk.annotators.ListAnnotators(
        preference_v1.ListAnnotatorsRequest(page_size=1, page_token=page.next_page_token), timeout=10
    )
    assert [one.annotator.kind for one in (*page.profiles, *rest.profiles)] == [1, 2]
    assert not rest.next_page_token
    with pytest.raises(NotFound):
        await desk.annotators.GetAnnotator(preference_v1.GetAnnotatorRequest(annotator=person("nobody")), timeout=10)
    profile = preference_v1.AnnotatorProfile(annotator=person("dan"), display_name="Dan")
    request = preference_v1.RegisterAnnotatorRequest(request_id="r", profile=profile)
    assert (await desk.annotators.RegisterAnnotator(request, timeout=10)).profile.display_name == "Dan"


async def test_a_deleted_prompt_is_asked_about_no_more(desk: Desk) -> None:
    task = await desk.task("to be deleted")
    lease = await leased(desk, "ann")
    await desk.load([pair(1)])
    frozen = await desk.snapshot(preference_v1.SNAPSHOT_KIND_PROMPTS)
    request = preference_v1.DeletePromptsRequest(request_id="d", prompt_ids=[task.prompt_id])
    deleted = await desk.stub.DeletePrompts(request, timeout=10)
    assert (deleted.deleted, deleted.cancelled_tasks) == (1, 1)
    with pytest.raises(FailedPrecondition) as caught:
        await desk.answer(lease, "ann")
    assert caught.value.reason == "PROMPT_DELETED"
    assert len(await desk.export(frozen.digest)) == 2
    assert len(await desk.export((await desk.snapshot(preference_v1.SNAPSHOT_KIND_PROMPTS)).digest)) == 1
    listed = await desk.stub.ListPrompts(preference_v1.ListPromptsRequest(), timeout=10)
    assert task.prompt_id not in {prompt.prompt_id for prompt in listed.prompts}
    with pytest.raises(NotFound, match=r"prompt_ids\[0\]"):
        await desk.stub.DeletePrompts(
            preference_v1.DeletePromptsRequest(request_id="e", prompt_ids=["gone"]), timeout=10
        )


async def test_the_services_clock_decides_and_tells_what_is_left(desk: Desk) -> None:
    await desk.task()
    lease = await desk.lease("ann", seconds=60)
    assert lease is not None
    assert lease.remaining.seconds == 60
    desk.now += 45
    held = await desk.stub.LeaseTask(
        preference_v1.LeaseTaskRequest(request_id="again", annotator=person("ann"), queue="q", resume=True), timeout=10
    )
    assert (held.lease.lease_id, held.lease.remaining.seconds) == (lease.lease_id, 15)
    renew = preference_v1.RenewLeaseRequest(request_id="renew", lease_id=lease.lease_id)
    renew.ttl.FromSeconds(100)
    assert (await desk.stub.RenewLease(renew, timeout=10)).lease.remaining.seconds == 100
    desk.now += 99
    stored = await desk.answer(lease, "ann")
    assert (stored.late, stored.elapsed.seconds) == (False, 144)
    with pytest.raises(FailedPrecondition) as caught:
        await desk.stub.RenewLease(
            preference_v1.RenewLeaseRequest(request_id="too late", lease_id=lease.lease_id), timeout=10
        )
    assert caught.value.reason == "LEASE_ENDED"


async def test_a_clock_that_is_set_back_makes_nothing_late_and_no_answer_of_negative_time(desk: Desk) -> None:
    await desk.task()
    lease = await desk.lease("ann", seconds=60)
    assert lease is not None
    desk.now -= 3600
    stored = await desk.answer(lease, "ann")
    assert (stored.late, stored.elapsed.seconds, stored.elapsed.nanos) == (False, 0, 0)
    assert stored.create_time.seconds == int(desk.now)
    [kept] = (await desk.stub.ListFeedback(preference_v1.ListFeedbackRequest(), timeout=10)).feedback
    assert kept == stored
    [people] = (await desk.annotators.GetQuality(preference_v1.GetQualityRequest(), timeout=10)).kinds
    assert people.annotators[0].median_seconds == 0


async def test_quality_names_who_agrees_who_hurries_and_what_drifts(desk: Desk) -> None:
    for number in range(30):
        await desk.task(f"question {number}", redundancy=4)
    for name, seconds in (("slow", 50), ("steady", 40), ("third", 45), ("quick", 5)):
        for number in range(30):
            lease = await leased(desk, name)
            desk.now += seconds
            odd = name == "quick" and number >= 15
            await desk.answer(lease, name, best=1 if odd else 0)
    desk.now += 86_400
    await desk.load([pair(number, annotator="ann") for number in range(3)])
    request = preference_v1.GetQualityRequest()
    request.window.FromSeconds(3600)
    [kind] = (await desk.annotators.GetQuality(request, timeout=30)).kinds
    assert (kind.judgements, kind.shared_pairs, kind.median_seconds) == (123, 30, 42.5)
    assert 0.3 < kind.alpha < 0.95
    people = {one.annotator.annotator_id: one for one in kind.annotators}
    assert [name for name, one in people.items() if one.speed_outlier] == ["quick"]
    assert people["quick"].hasty_answers == 30
    assert people["quick"].consensus_agreement == pytest.approx(0.5)
    assert people["quick"].drift == pytest.approx(-1.0)
    assert people["steady"].drift == pytest.approx(0.0)
    assert people["quick"].reliability < 0.7 < people["slow"].reliability
    assert not people["ann"].HasField("consensus_agreement")
    assert len(kind.windows) >= 2
    assert kind.windows[-1].longer_rate == 1.0  # the chosen answers of the import are the longer ones
    request.window.FromSeconds(5)
    with pytest.raises(InvalidArgument, match="window"):
        await desk.annotators.GetQuality(request, timeout=10)


async def test_an_answer_that_was_not_corrected_by_name_is_refused(desk: Desk) -> None:
    await desk.task()
    lease = await leased(desk, "ann")
    first = await desk.answer(lease, "ann")
    with pytest.raises(AlreadyExists) as caught:
        await desk.answer(lease, "ann", best=1)
    assert caught.value.metadata["feedback_id"] == first.feedback_id
