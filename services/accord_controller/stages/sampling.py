"""Samples from the active policy: requested in batches, each recorded before it is used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from accord.errors import Unavailable
from accord.preference import v1 as preference_v1
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_controller.ledger.keys import key
from accord_controller.stages.context import StageContext

# The size of a request, and the most that is lost and made again when a process dies.
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
    """`n` samples for each prompt, in prompt order; recorded ones are read back, not made again.

    `purpose` names them in the ledger (`collect`). `seed_parts` and the prompt's id seed each prompt: equal parts give
    equal samples. Failed samples are left out and counted in an event. Updates the run's progress.
    """
    size = max(1, SAMPLES_PER_REQUEST // n)
    batches = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    samples: list[types_v1.Sample] = []
    for number, batch in enumerate(batches):
        name = key(iteration, purpose, "samples", number)
        found = await context.ledger.read(name, types_v1.Sample)
        if found is None:
            found = await request_samples(
                context, name.replace("/", "-"), batch, n=n, version=version, seed_parts=seed_parts
            )
            await context.recorder.record_all(name, types_v1.Sample, found)
        samples.extend(found)
        await context.recorder.progress(number + 1, len(batches), f"{len(samples)} answers sampled")
    return samples


async def request_samples(
    context: StageContext,
    request: str,
    prompts: Sequence[preference_v1.Prompt],
    *,
    n: int,
    version: int | None = None,
    min_version: int | None = None,
    seed_parts: Sequence[object],
) -> list[types_v1.Sample]:
    """The samples of one Generate request, ordered by index, by exactly this version of the weights or by `min_version`
    and later.

    Retryable failures are requested again; samples that still fail are dropped and reported in a `retry` event.
    Unavailable, NO_SAMPLES, when none is left.
    """
    requested = [to_rollout(context, prompt, *seed_parts) for prompt in prompts]
    request_id = f"{context.run_id}-{request}"
    samples: dict[int, types_v1.Sample] = {}
    wanted: list[int] = []
    for attempt in range(TRIES):
        failures: dict[int, types_v1.Failure] = {}
        async for response in context.rollout.generate(
            requested,
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
            f"{len(failures)} of {len(requested) * n} samples of {request} failed ({first.reason}: {first.message}); "
            + (f"requesting {len(wanted)} again" if again else "dropped"),
            {"failed_samples": len(failures)},
        )
        if not again:
            break
    if not samples:
        raise Unavailable(f"All samples of {request} failed. See the preceding retry events", reason="NO_SAMPLES")
    return [samples[index] for index in sorted(samples)]


def sampling_params(context: StageContext) -> types_v1.SamplingParams:
    """The run's sampling: the plain distribution at its temperature, so that log-probabilities are exact."""
    rollout = context.spec.rollout
    return types_v1.SamplingParams(max_new_tokens=rollout.max_new_tokens, temperature=rollout.temperature)


def to_rollout(context: StageContext, prompt: preference_v1.Prompt, *seed_parts: object) -> rollout_v1.Prompt:
    """A prompt as the engine gets it: with its seed, and the run's system message first where it has none."""
    converted = rollout_v1.Prompt(prompt_id=prompt.prompt_id, seed=context.seed(*seed_parts, prompt.prompt_id))
    messages = prompt.conversation.messages
    system = context.spec.rollout.system_prompt
    if system and not any(message.role == "system" for message in messages):
        converted.conversation.messages.add(role="system", content=system)
    converted.conversation.messages.extend(messages)
    return converted


def mean_tokens(samples: Iterable[types_v1.Sample]) -> float:
    """Mean response length, tokens."""
    lengths = [len(sample.response_token_ids) for sample in samples]
    return sum(lengths) / len(lengths)
