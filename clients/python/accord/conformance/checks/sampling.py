"""Tokens are sampled by seed, from the requested distribution, with its log-probabilities."""

from __future__ import annotations

import math

from accord.conformance.check import check
from accord.conformance.target import PROMPTS, Target
from accord.conformance.verdict import NotApplicable, Unmet, demand
from accord.errors import FailedPrecondition, InvalidArgument, Unimplemented
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1


def tokens(samples: dict[int, types_v1.Sample]) -> dict[int, list[int]]:
    """Response ids by index."""
    return {index: list(sample.response_token_ids) for index, sample in samples.items()}


# Equal samples whose probability is below e to this (nats) are no coincidence.
COINCIDENCE = math.log(1e-9)
# A policy without a choice at one temperature gets more choice at the next. At the last one, no answer is certain.
TEMPERATURES = (1.0, 2.0, 1000.0)


@check(
    demands="the same seeds and weights give the same tokens, other seeds different ones if the policy leaves a choice",
    fix="derive every sample's random numbers from (prompt seed, j) alone, and divide the logits by the temperature",
    acceptance=True,
)
async def seeds_decide(target: Target) -> None:
    for temperature in TEMPERATURES:
        request = target.request(n=3, sampling=types_v1.SamplingParams(max_new_tokens=12, temperature=temperature))
        try:
            first = await target.samples(request)
        except (InvalidArgument, FailedPrecondition, Unimplemented) as error:
            if temperature == 1:
                raise
            raise NotApplicable(
                "the policy gives one answer for any seed, consistent with its log-probabilities, and the engine "
                f"refuses temperature {temperature:g}, at which it would have a choice: {error.message}"
            ) from error
        request.request_id = target.request_id()
        demand(tokens(await target.samples(request)) == tokens(first), "the same seeds gave different tokens")
        demand(len({sample.seed for sample in first.values()}) == len(first), "two samples report the same seed")
        request.request_id = target.request_id()
        for prompt in request.prompts:
            prompt.seed += 1000
        if differ(first, await target.samples(request), request.n):
            return
    raise Unmet(f"other seeds gave the same tokens, also at temperature {temperature:g}")


def differ(first: dict[int, types_v1.Sample], others: dict[int, types_v1.Sample], n: int) -> bool:
    """Whether any samples with different seeds differ. Unmet if some are equal although their log-probabilities make
    that too unlikely."""
    pairs = [(first[index], others[index]) for index in first]
    pairs += [(first[index], first[index - 1]) for index in first if index % n]
    alike = [one for one, other in pairs if one.response_token_ids == other.response_token_ids]
    chance = math.fsum(logprob for one in alike for logprob in one.logprobs)
    demand(
        not chance < COINCIDENCE,
        f"other seeds gave the same tokens in {len(alike)} of {len(pairs)} samples; by their log-probabilities "
        f"this happens once in e^{-chance:.0f} times",
    )
    return len(alike) < len(pairs)


@check(
    demands="`indices` gives only those samples, as in the whole request; prompts without any may be empty",
    fix="a sample's seed and index must not depend on other requested indices; read only the prompts of these indices",
    acceptance=True,
)
async def missing_indices_can_be_asked_for(target: Target) -> None:
    request = target.request(n=2)
    whole = await target.samples(request)
    request.indices.extend([1, 4])
    part = await target.samples(request)
    demand(tokens(part) == {index: tokens(whole)[index] for index in (1, 4)}, "indices 1 and 4 gave different tokens")
    request.prompts[1].Clear()
    part = await target.samples(request)
    demand(
        tokens(part) == {index: tokens(whole)[index] for index in (1, 4)}, "without prompt 1 they gave different tokens"
    )


@check(
    demands="temperature 0 is greedy whatever the seed, with logprobs of softmax(logits)",
    fix="at temperature 0 choose the most likely token",
    acceptance=True,
)
async def greedy_is_greedy(target: Target) -> None:
    request = target.request(sampling=types_v1.SamplingParams(max_new_tokens=8, temperature=0))
    first = await target.samples(request)
    for prompt in request.prompts:
        prompt.seed += 1000
    request.request_id = target.request_id()
    demand(tokens(await target.samples(request)) == tokens(first), "another seed changed a greedy answer")


async def compare_with_reference(target: Target, sampling: types_v1.SamplingParams) -> None:
    if target.reference is None or target.model is None:
        raise NotApplicable("needs --model and --reference to recompute logprobs")
    await target.update(target.weights(target.model, (await target.status()).version))
    worst = 0.0
    for sample in (await target.samples(target.request(n=2, sampling=sampling))).values():
        expected = target.reference(target.model, sample.prompt_token_ids, sample.response_token_ids, sample.sampling)
        for position, (found, wanted) in enumerate(zip(sample.logprobs, expected, strict=True)):
            demand(
                math.isfinite(found) and abs(found - wanted) <= target.tolerance,
                f"sample {sample.index}, token {position}: logprob {found:.4f}, the reference has {wanted:.4f} "
                f"(tolerance {target.tolerance:g})",
            )
            worst = max(worst, abs(found - wanted))


@check(
    demands="logprobs equal those recomputed with the model",
    fix="report log softmax of the logits that the token was sampled from, in nats, float32",
)
async def logprobs_of_the_model(target: Target) -> None:
    await compare_with_reference(target, types_v1.SamplingParams(max_new_tokens=10))


@check(
    demands="logprobs are those of the sampled distribution: logits divided by the temperature",
    fix="apply the temperature before the log softmax of the reported logprobs",
)
async def logprobs_at_another_temperature(target: Target) -> None:
    await compare_with_reference(target, types_v1.SamplingParams(max_new_tokens=10, temperature=0.6))


@check(
    demands="logprobs under top_k are those of the truncated distribution, or top_k is refused",
    fix="renormalise over the remaining tokens, or answer INVALID_ARGUMENT or UNIMPLEMENTED",
)
async def logprobs_under_top_k(target: Target) -> None:
    try:
        await compare_with_reference(target, types_v1.SamplingParams(max_new_tokens=10, top_k=3))
    except (InvalidArgument, Unimplemented) as error:
        raise NotApplicable(f"the engine refuses top_k: {error.message}") from error


@check(
    demands="a conversation that the template refuses, or a prompt that is too long, fails its samples only",
    fix="answer SampleFailure for the indices of that prompt; never an empty sample or an error of the whole request",
    acceptance=True,
)
async def a_bad_prompt_loses_no_other(target: Target) -> None:
    status = await target.status()
    request = target.request(PROMPTS[:1], tokenizer_fingerprint=status.tokenizer_fingerprint)
    if status.max_context_tokens > 200_000:
        raise NotApplicable("the context has no limit that could be exceeded")
    prompt = next(iter((await target.samples(request)).values())).prompt_token_ids
    demand(prompt, "the sample has no prompt_token_ids")
    ids = (list(prompt) * (status.max_context_tokens // len(prompt) + 1))[: status.max_context_tokens]
    request.request_id = target.request_id()
    request.prompts.append(rollout_v1.Prompt(token_ids=rollout_v1.TokenIds(ids=ids)))
    found = await target.responses(request)
    demand(found[0].HasField("sample"), "the good prompt was lost")
    demand(found[1].HasField("failure"), "a prompt that leaves no room for a token was answered")
    demand(found[1].failure.failure.reason, "the failure has no reason")
