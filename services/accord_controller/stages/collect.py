"""Collect: annotators judge answers of the active policy; all preferences so far are pinned by digest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from accord.controller import v1 as controller_v1
from accord.errors import FailedPrecondition
from accord.preference import v1 as preference_v1
from accord.reward import v1 as reward_v1
from accord.types import v1 as types_v1
from accord_controller.ledger import keys
from accord_controller.ledger.keys import key
from accord_controller.stages.active_selection import select_samples, selects
from accord_controller.stages.context import StageContext
from accord_controller.stages.engine_identity import check_same_engine
from accord_controller.stages.heldout import finish_stage
from accord_controller.stages.judging import judge_tasks
from accord_controller.stages.sampling import gather_samples
from accord_controller.stages.scoring import Scored, score_samples
from accord_controller.stages.seeds import turn
from accord_controller.stages.simulated_annotators import annotate_queue
from accord_controller.stages.waiting import wait_for_people

# One in this many prompts comes from the held-out split: its feedback measures the reward model and is not trained on.
HELDOUT_PART = 5
SHOWN_EVERY = 8


async def collect(context: StageContext, iteration: int) -> None:
    """Runs the stage; its result names the preference snapshot."""
    feedback = context.spec.feedback
    if feedback.HasField("preferences"):
        choice = context.ledger.need(keys.FEEDBACK, preference_v1.SnapshotFilter)
    else:
        tasks, completions = await _open_tasks(context, iteration)
        if feedback.HasField("simulated"):
            await _simulate(context, iteration, tasks, completions)
        elif feedback.HasField("judges"):
            await judge_tasks(context, queue_name(context.run_id, iteration), len(tasks))
        else:
            await wait_for_people(context, iteration, queue_name(context.run_id, iteration), len(tasks))
        queues = [queue_name(context.run_id, number) for number in range(1, iteration + 1)]
        choice = preference_v1.SnapshotFilter(queues=queues, annotator_kinds=_kinds(feedback))
    name = key(iteration, "collect", "snapshot")
    snapshot = context.ledger.get(name, preference_v1.Snapshot)
    if snapshot is None:
        snapshot = await context.client.preferences.create_snapshot(preference_v1.SNAPSHOT_KIND_PREFERENCES, choice)
        await context.recorder.record(name, snapshot)
    if not snapshot.train_records:
        raise FailedPrecondition(
            "The run has no preferences in the training split, so there is nothing to train the reward model on. Add "
            "prompts or preferences",
            reason="NO_PREFERENCES",
        )
    part = controller_v1.IterationResult(
        prompt_snapshot=context.ledger.need(keys.PROMPT_SNAPSHOT, preference_v1.Snapshot).digest,
        preference_snapshot=snapshot.digest,
        started_from=context.promoted(),
    )
    message = f"{snapshot.train_records} preferences to train on, {snapshot.heldout_records} held out"
    metrics = {
        "train_preferences": float(snapshot.train_records),
        "heldout_preferences": float(snapshot.heldout_records),
    }
    await finish_stage(context, controller_v1.STAGE_COLLECT, part, message, metrics)


def queue_name(run_id: str, iteration: int) -> str:
    """The queue of an iteration's tasks: `demo/iteration-1`."""
    return f"{run_id}/iteration-{iteration}"


async def collect_prompts(context: StageContext, iteration: int) -> list[preference_v1.Prompt]:
    """The prompts of this iteration, from both sides of the split. No prompt repeats until all have been used. If a
    selection follows, the training side is as large as the spec's selection pool."""
    chosen: list[preference_v1.Prompt] = []
    feedback = context.spec.feedback
    heldout = heldout_prompts(context)
    total = feedback.selection_pool if selects(context, iteration) else feedback.prompts_per_iteration
    for split, count in ((preference_v1.SPLIT_HELDOUT, heldout), (preference_v1.SPLIT_TRAIN, total - heldout)):
        available = await context.prompts_of(split)
        count = min(count, len(available))
        chosen += turn(
            available, lambda prompt: prompt.prompt_id, count, iteration - 1, context.spec.seed, "collect", split
        )
    return list({prompt.prompt_id: prompt for prompt in chosen}.values())


def heldout_prompts(context: StageContext) -> int:
    """How many of an iteration's prompts come from the held-out split."""
    return max(1, context.spec.feedback.prompts_per_iteration // HELDOUT_PART)


def _kinds(feedback: controller_v1.FeedbackSpec) -> list[preference_v1.AnnotatorKind.ValueType]:
    """The annotators whose judgements count. A person's answers in a queue for programs do not change the run; a queue
    for people counts everyone."""
    if feedback.HasField("simulated"):
        return [preference_v1.ANNOTATOR_KIND_SIMULATED]
    return [preference_v1.ANNOTATOR_KIND_MODEL] if feedback.HasField("judges") else []


async def _open_tasks(
    context: StageContext, iteration: int
) -> tuple[list[preference_v1.Task], list[preference_v1.Completion]]:
    """The iteration's tasks and their answers, opened once."""
    completions = await _completions(context, iteration)
    name = key(iteration, "collect", "tasks")
    tasks = await context.ledger.read(name, preference_v1.Task)
    if tasks is None:
        wanted = _tasks_for(context, iteration, completions)
        # With this request_id, a repeat after a crash is the same call.
        tasks = await _create(context, wanted, f"{context.run_id}-{iteration}-tasks")
        await context.recorder.record_all(name, preference_v1.Task, tasks)
    return tasks, completions


async def _create(
    context: StageContext, wanted: Sequence[preference_v1.Task], request_id: str
) -> list[preference_v1.Task]:
    """Opens tasks, except those for prompts that have since been deleted."""
    try:
        return await context.client.preferences.create_tasks(wanted, request_id=request_id)
    except FailedPrecondition as error:
        gone = error.metadata.get("prompt_id")
        rest = [task for task in wanted if task.prompt_id != gone]
        if error.reason != "PROMPT_DELETED" or not rest:
            raise
        await context.recorder.emit("left_out", f"prompt {gone} has since been deleted, so it gets no task")
        # Nothing was opened, so the same request_id can be used for the rest.
        return await _create(context, rest, request_id)


async def _completions(context: StageContext, iteration: int) -> list[preference_v1.Completion]:
    """The policy's answers as the preference service stores them."""
    name = key(iteration, "collect", "completions")
    completions = await context.ledger.read(name, preference_v1.Completion)
    if completions is not None:
        return completions
    prompts = await collect_prompts(context, iteration)
    policy = context.promoted()
    async with context.leased("rollout"):
        await check_same_engine(context)
        await context.rollout.update_weights(policy)
        samples = await gather_samples(
            context,
            iteration,
            "collect",
            prompts,
            n=context.spec.feedback.completions_per_prompt,
            version=policy.version,
            seed_parts=("collect", iteration),
        )
    if selects(context, iteration):
        wanted = context.spec.feedback.prompts_per_iteration - heldout_prompts(context)
        samples = await select_samples(context, iteration, samples, wanted)
    completions = await context.client.preferences.create_completions(
        [_completion(context, iteration, sample) for sample in samples],
        request_id=f"{context.run_id}-{iteration}-completions",
    )
    await context.recorder.record_all(name, preference_v1.Completion, completions)
    return completions


def _completion(context: StageContext, iteration: int, sample: types_v1.Sample) -> preference_v1.Completion:
    return preference_v1.Completion(
        prompt_id=sample.prompt_id,
        text=sample.text,
        finish_reason=sample.finish_reason,
        origin=preference_v1.CompletionOrigin(
            run_id=context.run_id,
            iteration=iteration,
            weights_version=sample.segments[0].version,
            weights_digest=sample.segments[0].digest,
            seed=sample.seed,
            engine=sample.engine,
        ),
    )


def _tasks_for(
    context: StageContext, iteration: int, completions: Sequence[preference_v1.Completion]
) -> list[preference_v1.Task]:
    """One task for each prompt: a comparison of two answers or a ranking of more. Prompts whose answers are all equal
    are skipped."""
    feedback = context.spec.feedback
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
            queue=queue_name(context.run_id, iteration),
            # Tasks from earlier iterations compare older policies, so they can wait.
            priority=iteration,
            criteria=people.criteria if people is not None else (),
            instructions=people.instructions if people is not None else "",
        )
        for prompt_id, answers in by_prompt.items()
        if len(answers) > 1
    ]
    if not tasks:
        raise FailedPrecondition(
            "All answers to each prompt are equal, so there is nothing to compare. Raise rollout.temperature",
            reason="NOTHING_TO_COMPARE",
        )
    return tasks


async def _simulate(
    context: StageContext,
    iteration: int,
    tasks: Sequence[preference_v1.Task],
    completions: Sequence[preference_v1.Completion],
) -> None:
    """Simulated annotators answer the queue. Their scores of the answers are recorded first."""
    simulated = context.spec.feedback.simulated
    scores = await _known_scores(context, iteration, tasks, completions)
    wanted = len(tasks) * simulated.redundancy
    before = (await context.client.preferences.queue(queue_name(context.run_id, iteration))).feedback

    async def progress(given: int) -> None:
        done = before + given
        if given % SHOWN_EVERY == 0 or done >= wanted:
            await context.recorder.progress(done, wanted, f"{done} of {wanted} simulated judgements")
        context.check()

    await annotate_queue(
        context.client,
        queue_name(context.run_id, iteration),
        scores,
        annotators=simulated.annotators,
        noise=simulated.noise,
        seed=context.seed("annotators", iteration),
        progress=progress,
    )


async def _known_scores(
    context: StageContext,
    iteration: int,
    tasks: Sequence[preference_v1.Task],
    completions: Sequence[preference_v1.Completion],
) -> dict[str, float]:
    """The annotators' score of every answer with a task, by completion id."""
    name = key(iteration, "collect", "scores")
    recorded = await context.ledger.read(name, reward_v1.ScoreResult)
    if recorded is None:
        asked = {completion_id for task in tasks for completion_id in task.completion_ids}
        prompts = await context.prompts()
        # A completion is scored like a sample, with its id as the sample's request_id.
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
        scored: Sequence[Scored] = await score_samples(
            context, answers, prompts, context.spec.feedback.simulated.scorers
        )
        if len(scored) < len(answers):
            raise FailedPrecondition(
                f"{len(answers) - len(scored)} answers have no score, so the simulated annotators cannot judge them",
                reason="NO_SCORES",
            )
        recorded = [reward_v1.ScoreResult(item_id=each.sample.request_id, score=each.score) for each in scored]
        await context.recorder.record_all(name, reward_v1.ScoreResult, recorded)
    return {result.item_id: result.score.value for result in recorded}
