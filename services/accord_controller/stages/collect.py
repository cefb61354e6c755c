"""Collect: answers of the policy in force, judged by annotators; all preferences so far pinned by digest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from accord.controller import v1 as controller_v1
from accord.errors import FailedPrecondition
from accord.preference import v1 as preference_v1
from accord.reward import v1 as reward_v1
from accord.types import v1 as types_v1
from accord_controller.stages import facts
from accord_controller.stages.active_selection import select_samples, selects
from accord_controller.stages.context import StageContext, key
from accord_controller.stages.engine_identity import check_same_engine
from accord_controller.stages.heldout import finish_stage
from accord_controller.stages.judging import judge_tasks
from accord_controller.stages.sampling import gather_samples
from accord_controller.stages.scoring import Scored, score_samples
from accord_controller.stages.seeds import turn
from accord_controller.stages.simulated_annotators import annotate_queue
from accord_controller.stages.waiting import wait_for_people

# Of the prompts asked, the part from the held-out side: their feedback measures the reward model, and trains nothing.
HELDOUT_PART = 5
SHOWN_EVERY = 8


async def collect(work: StageContext, iteration: int) -> None:
    """Runs the stage; its result names the preference snapshot."""
    feedback = work.spec.feedback
    if feedback.HasField("preferences"):
        choice = work.ledger.need(facts.FEEDBACK, preference_v1.SnapshotFilter)
    else:
        tasks, completions = await _open_tasks(work, iteration)
        if feedback.HasField("simulated"):
            await _simulate(work, iteration, tasks, completions)
        elif feedback.HasField("judges"):
            await judge_tasks(work, queue_name(work.run_id, iteration), len(tasks))
        else:
            await wait_for_people(work, iteration, queue_name(work.run_id, iteration), len(tasks))
        queues = [queue_name(work.run_id, number) for number in range(1, iteration + 1)]
        choice = preference_v1.SnapshotFilter(queues=queues, annotator_kinds=_kinds(feedback))
    name = key(iteration, "collect", "snapshot")
    snapshot = work.ledger.get(name, preference_v1.Snapshot)
    if snapshot is None:
        snapshot = await work.client.preferences.create_snapshot(preference_v1.SNAPSHOT_KIND_PREFERENCES, choice)
        await work.journal.record(name, snapshot)
    if not snapshot.train_records:
        raise FailedPrecondition("there is no preference on the training side of the split", reason="NO_PREFERENCES")
    part = controller_v1.IterationResult(
        prompt_snapshot=work.ledger.need(facts.PROMPT_SNAPSHOT, preference_v1.Snapshot).digest,
        preference_snapshot=snapshot.digest,
        started_from=facts.promoted(work),
    )
    said = f"{snapshot.train_records} preferences to train on, {snapshot.heldout_records} held out"
    metrics = {
        "train_preferences": float(snapshot.train_records),
        "heldout_preferences": float(snapshot.heldout_records),
    }
    await finish_stage(work, controller_v1.STAGE_COLLECT, part, said, metrics)


def queue_name(run_id: str, iteration: int) -> str:
    """The queue of an iteration's tasks: `demo/iteration-1`."""
    return f"{run_id}/iteration-{iteration}"


async def collect_prompts(work: StageContext, iteration: int) -> list[preference_v1.Prompt]:
    """The prompts asked in this iteration, of both sides of the split; none twice until all were asked. Where a
    selection follows, so many more of the training side as the spec says."""
    chosen: list[preference_v1.Prompt] = []
    feedback = work.spec.feedback
    heldout = heldout_prompts(work)
    total = feedback.selection_pool if selects(work, iteration) else feedback.prompts_per_iteration
    for split, count in ((preference_v1.SPLIT_HELDOUT, heldout), (preference_v1.SPLIT_TRAIN, total - heldout)):
        there = await facts.prompts_of(work, split)
        count = min(count, len(there))
        chosen += turn(there, lambda prompt: prompt.prompt_id, count, iteration - 1, work.spec.seed, "collect", split)
    return list({prompt.prompt_id: prompt for prompt in chosen}.values())


def heldout_prompts(work: StageContext) -> int:
    """How many of an iteration's prompts are on the held-out side."""
    return max(1, work.spec.feedback.prompts_per_iteration // HELDOUT_PART)


def _kinds(feedback: controller_v1.FeedbackSpec) -> list[preference_v1.AnnotatorKind.ValueType]:
    """Whose judgements count: a person who wanders into a queue of programs does not change what a run measures. Queues
    for people take whoever answers."""
    if feedback.HasField("simulated"):
        return [preference_v1.ANNOTATOR_KIND_SIMULATED]
    return [preference_v1.ANNOTATOR_KIND_MODEL] if feedback.HasField("judges") else []


async def _open_tasks(
    work: StageContext, iteration: int
) -> tuple[list[preference_v1.Task], list[preference_v1.Completion]]:
    """The iteration's tasks and their answers, opened once."""
    completions = await _completions(work, iteration)
    name = key(iteration, "collect", "tasks")
    tasks = await work.ledger.read(name, preference_v1.Task)
    if tasks is None:
        wanted = _tasks_for(work, iteration, completions)
        # The request_id makes a repeat after a kill the same call.
        tasks = await _create(work, wanted, f"{work.run_id}-{iteration}-tasks")
        await work.journal.record_all(name, preference_v1.Task, tasks)
    return tasks, completions


async def _create(
    work: StageContext, wanted: Sequence[preference_v1.Task], request_id: str
) -> list[preference_v1.Task]:
    """Opens tasks; those about prompts that somebody has deleted meanwhile are left out."""
    try:
        return await work.client.preferences.create_tasks(wanted, request_id=request_id)
    except FailedPrecondition as error:
        gone = error.metadata.get("prompt_id")
        rest = [task for task in wanted if task.prompt_id != gone]
        if error.reason != "PROMPT_DELETED" or not rest:
            raise
        await work.journal.tell("left_out", f"prompt {gone} was deleted meanwhile; nobody is asked about it")
        # Nothing was opened, so the same request_id may name what is left.
        return await _create(work, rest, request_id)


async def _completions(work: StageContext, iteration: int) -> list[preference_v1.Completion]:
    """The policy's answers as the preference service keeps them."""
    name = key(iteration, "collect", "completions")
    completions = await work.ledger.read(name, preference_v1.Completion)
    if completions is not None:
        return completions
    prompts = await collect_prompts(work, iteration)
    policy = facts.promoted(work)
    async with work.leased("rollout"):
        await check_same_engine(work)
        await work.rollout.update_weights(policy)
        samples = await gather_samples(
            work,
            iteration,
            "collect",
            prompts,
            n=work.spec.feedback.completions_per_prompt,
            version=policy.version,
            seed_parts=("collect", iteration),
        )
    if selects(work, iteration):
        wanted = work.spec.feedback.prompts_per_iteration - heldout_prompts(work)
        samples = await select_samples(work, iteration, samples, wanted)
    completions = await work.client.preferences.create_completions(
        [_completion(work, iteration, sample) for sample in samples],
        request_id=f"{work.run_id}-{iteration}-completions",
    )
    await work.journal.record_all(name, preference_v1.Completion, completions)
    return completions


def _completion(work: StageContext, iteration: int, sample: types_v1.Sample) -> preference_v1.Completion:
    return preference_v1.Completion(
        prompt_id=sample.prompt_id,
        text=sample.text,
        finish_reason=sample.finish_reason,
        origin=preference_v1.CompletionOrigin(
            run_id=work.run_id,
            iteration=iteration,
            weights_version=sample.segments[0].version,
            weights_digest=sample.segments[0].digest,
            seed=sample.seed,
            engine=sample.engine,
        ),
    )


def _tasks_for(
    work: StageContext, iteration: int, completions: Sequence[preference_v1.Completion]
) -> list[preference_v1.Task]:
    """One task for each prompt: a comparison of two answers or a ranking of more. Prompts whose answers are all the
    same are left out: there is nothing to judge."""
    feedback = work.spec.feedback
    kind = feedback.WhichOneof("source")
    redundancy = int(getattr(feedback, kind or "people").redundancy)
    people = feedback.people if kind == "people" else None
    by_prompt: dict[str, dict[str, preference_v1.Completion]] = defaultdict(dict)
    for completion in completions:
        by_prompt[completion.prompt_id].setdefault(completion.text, completion)
    tasks = [
        preference_v1.Task(
            kind=preference_v1.TASK_KIND_COMPARISON if len(answers) == 2 else preference_v1.TASK_KIND_RANKING,
            prompt_id=prompt_id,
            completion_ids=[answer.completion_id for answer in answers.values()],
            redundancy=redundancy,
            queue=queue_name(work.run_id, iteration),
            # What is left of earlier iterations is about older policies: it can wait.
            priority=iteration,
            criteria=people.criteria if people is not None else (),
            instructions=people.instructions if people is not None else "",
        )
        for prompt_id, answers in by_prompt.items()
        if len(answers) > 1
    ]
    if not tasks:
        raise FailedPrecondition(
            "the policy gave the same answers again and again: there is nothing to compare; raise rollout.temperature",
            reason="NOTHING_TO_COMPARE",
        )
    return tasks


async def _simulate(
    work: StageContext,
    iteration: int,
    tasks: Sequence[preference_v1.Task],
    completions: Sequence[preference_v1.Completion],
) -> None:
    """Simulated annotators answer the queue. What they think of the answers is recorded first."""
    simulated = work.spec.feedback.simulated
    scores = await _known_scores(work, iteration, tasks, completions)
    wanted = len(tasks) * simulated.redundancy
    before = (await work.client.preferences.queue(queue_name(work.run_id, iteration))).feedback

    async def progress(given: int) -> None:
        done = before + given
        if given % SHOWN_EVERY == 0 or done >= wanted:
            await work.journal.progress(done, wanted, f"{done} of {wanted} simulated judgements")
        work.check()

    await annotate_queue(
        work.client,
        queue_name(work.run_id, iteration),
        scores,
        annotators=simulated.annotators,
        noise=simulated.noise,
        seed=work.seed("annotators", iteration),
        progress=progress,
    )


async def _known_scores(
    work: StageContext,
    iteration: int,
    tasks: Sequence[preference_v1.Task],
    completions: Sequence[preference_v1.Completion],
) -> dict[str, float]:
    """The annotators' score of every answer that is asked about, by completion id."""
    name = key(iteration, "collect", "scores")
    recorded = await work.ledger.read(name, reward_v1.ScoreResult)
    if recorded is None:
        asked = {completion_id for task in tasks for completion_id in task.completion_ids}
        prompts = await facts.prompts(work)
        # A completion is scored as a sample is: its id in the place of the sample's.
        answers = [
            types_v1.Sample(
                request_id=answer.completion_id,
                prompt_id=answer.prompt_id,
                text=answer.text,
                finish_reason=answer.finish_reason,
            )
            for answer in completions
            if answer.completion_id in asked
        ]
        scored: Sequence[Scored] = await score_samples(work, answers, prompts, work.spec.feedback.simulated.scorers)
        if len(scored) < len(answers):
            raise FailedPrecondition(
                f"{len(answers) - len(scored)} answers have no score, so annotators cannot judge them",
                reason="NO_SCORES",
            )
        recorded = [reward_v1.ScoreResult(item_id=each.sample.request_id, score=each.score) for each in scored]
        await work.journal.record_all(name, reward_v1.ScoreResult, recorded)
    return {result.item_id: result.score.value for result in recorded}
