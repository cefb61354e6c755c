"""What a sample is: complete, keyed, of the weights in force."""

from __future__ import annotations

from accord.conformance.check import check
from accord.conformance.target import PROMPTS, Target
from accord.conformance.verdict import NotApplicable, demand
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1


@check(
    demands="GetStatus says engine, readiness, active weights, tokenizer and limits",
    fix="fill GetStatusResponse; digest and tokenizer_fingerprint are SHA-256 in lower-case hex",
    acceptance=True,
)
async def status(target: Target) -> None:
    said = await target.status()
    demand(said.engine, "engine is empty")
    demand(said.ready, "it is not ready: load weights first (--model DIR)")
    demand(len(said.digest) == 64, f"digest {said.digest!r} is no SHA-256")
    demand(said.tokenizer_fingerprint, "tokenizer_fingerprint is empty")
    demand(said.max_context_tokens > 0, "max_context_tokens is 0")


@check(
    demands="each of prompts x n indices comes once, with tokens, logprobs, mask, seed, segments and fingerprint",
    fix="key samples by prompt_index * n + j; one logprob and one mask entry for each response token",
    acceptance=True,
)
async def samples_are_whole(target: Target) -> None:
    in_force = await target.status()
    request = target.request(n=3)
    for index, sample in (await target.samples(request)).items():
        at, length = f"sample {index}: ", len(sample.response_token_ids)
        demand(sample.prompt_id == f"p{index // 3}", f"{at}prompt_id is {sample.prompt_id!r}")
        demand(sample.prompt_token_ids, f"{at}has no prompt_token_ids")
        demand(length, f"{at}is empty")
        demand(len(sample.logprobs) == length, f"{at}{len(sample.logprobs)} logprobs for {length} tokens")
        demand(all(value <= 0 for value in sample.logprobs), f"{at}a logprob is above 0 or no number")
        demand(len(sample.response_mask) == length, f"{at}{len(sample.response_mask)} mask entries, {length} tokens")
        demand(all(sample.response_mask), f"{at}the mask is 0 where the policy chose the token")
        demand(sample.finish_reason, f"{at}has no finish_reason")
        demand(sample.sampling.max_new_tokens == 12, f"{at}does not say how it was drawn (sampling)")
        demand(sample.sampling.temperature == 1, f"{at}sampling.temperature is {sample.sampling.temperature}, not 1")
        demand(sample.tokenizer_fingerprint == in_force.tokenizer_fingerprint, f"{at}has another tokenizer")
        demand(
            sample.engine in ("", in_force.engine), f"{at}says the engine {sample.engine!r}, not {in_force.engine!r}"
        )
        segments = [(one.start, one.version, one.digest) for one in sample.segments]
        demand(segments == [(0, in_force.version, in_force.digest)], f"{at}its segments are {segments}")


@check(
    demands="max_new_tokens is the most; a response that reaches it says LENGTH, any other STOP",
    fix="count the end-of-sequence token; finish_reason LENGTH only where the limit ended it",
    acceptance=True,
)
async def length_is_kept(target: Target) -> None:
    for most in (1, 5):
        request = target.request(n=4, sampling=types_v1.SamplingParams(max_new_tokens=most))
        for index, sample in (await target.samples(request)).items():
            length = len(sample.response_token_ids)
            demand(length <= most, f"sample {index} has {length} tokens, {most} were asked for")
            if sample.finish_reason == types_v1.FINISH_REASON_LENGTH:
                demand(length == most, f"sample {index} says LENGTH after {length} of {most} tokens")


@check(
    demands="the end-of-sequence token ends the response and is its last token",
    fix="keep the end-of-sequence token, and its logprob, in the response; nothing after it",
    acceptance=True,
)
async def stop_ends_the_response(target: Target) -> None:
    sampling = types_v1.SamplingParams(max_new_tokens=48, temperature=2.0)
    found = list((await target.samples(target.request(n=24, sampling=sampling))).values())
    stopped = [sample for sample in found if sample.finish_reason == types_v1.FINISH_REASON_STOP]
    if not stopped:
        raise NotApplicable(f"none of {len(found)} responses came to its end by itself")
    ends = {sample.response_token_ids[-1] for sample in stopped}
    for sample in found:
        early = ends & set(sample.response_token_ids[:-1])
        demand(not early, f"sample {sample.index} goes on after token {early}, which ended another")
        if sample.finish_reason == types_v1.FINISH_REASON_LENGTH:
            demand(sample.response_token_ids[-1] not in ends, f"sample {sample.index} stopped and says LENGTH")


@check(
    demands="a prompt of token ids is fed as it is",
    fix="do not add or strip tokens of Prompt.token_ids",
    acceptance=True,
)
async def token_ids_are_taken_as_they_are(target: Target) -> None:
    told = next(iter((await target.samples(target.request(PROMPTS[:1]))).values()))
    prompt = rollout_v1.Prompt(token_ids=rollout_v1.TokenIds(ids=told.prompt_token_ids), seed=1)
    request = target.request((), tokenizer_fingerprint=told.tokenizer_fingerprint)
    request.prompts.append(prompt)
    again = (await target.samples(request))[0]
    demand(again.prompt_token_ids == told.prompt_token_ids, "prompt_token_ids are others than those given")
    demand(again.response_token_ids == told.response_token_ids, "the same ids and seed gave another response")
