"""Answers from the policy in force: asked in batches, each recorded before anything is done with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from accord.errors import Unavailable
from accord.preference import v1 as preference_v1
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_controller.ledger.keys import key
from accord_controller.stages.context import StageContext

# One request; also the most that is lost, and made again, when somebody dies.
SAMPLES_PER_REQUEST = 32
TRIES = 3


async def gather_samples(
    context: StageContext,
    iteration: int,
    purpose: str,
    prompts: Sequence[preference_v1.Prompt],
    *,
    n: int,
    version: int,
    seed_parts: Sequence[object],
) -> list[types_v1.Sample]:
    """`n` samples for each prompt, in prompt order; those recorded already are read back, not made again.

    `purpose` names them in the ledger (`collect`); `seed_parts` with the prompt's id seed each prompt, so that the same
    parts draw the same. Failed samples are left out and counted in an event. Updates the run's progress.
    """
    size = max(1, SAMPLES_PER_REQUEST // n)
    batches = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    samples: list[types_v1.Sample] = []
    for number, batch in enumerate(batches):
        name = key(iteration, purpose, "samples", number)
        found = await context.ledger.read(name, types_v1.Sample)
        if found is None:
            found = await ask_samples(
                context, name.replace("/", "-"), batch, n=n, version=version, seed_parts=seed_parts
            )
            await context.recorder.record_all(name, types_v1.Sample, found)
        samples.extend(found)
        await context.recorder.progress(number + 1, len(batches), f"{len(samples)} answers sampled")
    return samples


async def ask_samples(
    context: StageContext,
    request: str,
    prompts: Sequence[preference_v1.Prompt],
    *,
    n: int,
    version: int | None = None,
    min_version: int | None = None,
    seed_parts: Sequence[object],
) -> list[types_v1.Sample]:
    """One Generate request, at exactly this version of the weights, or from `min_version` on at whatever is in force
    then; samples by index.

    Samples that fail and may succeed are asked for again; what still fails is dropped and told as a `retry` event.
    Unavailable, NO_SAMPLES, when nothing is left.
    """
    asked = [to_rollout(context, prompt, *seed_parts) for prompt in prompts]
    request_id = f"{context.run_id}-{request}"
    samples: dict[int, types_v1.Sample] = {}
    wanted: list[int] = []
    for attempt in range(TRIES):
        failures: dict[int, types_v1.Failure] = {}
        async for response in context.rollout.generate(
            asked,
            n=n,
            sampling=sampling_params(context),
            request_id=request_id if not attempt else f"{request_id}-{attempt}",
            version=version,
            min_version=min_version,
            indices=wanted,
        ):
            if response.WhichOneof("result") == "sample":
                samples.setdefault(response.sample.index, response.sample)
            else:
                failures[response.failure.index] = response.failure.failure
        if not failures:
            break
        first = next(iter(failures.values()))
        wanted = sorted(index for index, failure in failures.items() if failure.retryable)
        again = bool(wanted) and attempt + 1 < TRIES
        await context.recorder.emit(
            "retry",
            f"{len(failures)} of {len(asked) * n} samples of {request} failed ({first.reason}: {first.message}); "
            + (f"asking again for {len(wanted)}" if again else "dropped"),
            {"failed_samples": len(failures)},
        )
        if not again:
            break
    if not samples:
        raise Unavailable(f"no sample of {request} could be made; see the events before this", reason="NO_SAMPLES")
    return [samples[index] for index in sorted(samples)]


def sampling_params(context: StageContext) -> types_v1.SamplingParams:
    """How the run draws tokens: the plain distribution at its temperature, so that log-probabilities are exact."""
    rollout = context.spec.rollout
    return types_v1.SamplingParams(max_new_tokens=rollout.max_new_tokens, temperature=rollout.temperature)


def to_rollout(context: StageContext, prompt: preference_v1.Prompt, *seed_parts: object) -> rollout_v1.Prompt:
    """A prompt as the engine is asked: the run's system turn in front where there is none, and its seed."""
    asked = rollout_v1.Prompt(prompt_id=prompt.prompt_id, seed=context.seed(*seed_parts, prompt.prompt_id))
    messages = prompt.conversation.messages
    system = context.spec.rollout.system_prompt
    if system and not any(message.role == "system" for message in messages):
        asked.conversation.messages.add(role="system", content=system)
    asked.conversation.messages.extend(messages)
    return asked


def mean_tokens(samples: Iterable[types_v1.Sample]) -> float:
    """Mean response length, tokens."""
    lengths = [len(sample.response_token_ids) for sample in samples]
    return sum(lengths) / len(lengths)
