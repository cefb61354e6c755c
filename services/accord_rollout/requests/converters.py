"""Engine results as contract messages."""

from __future__ import annotations

from collections.abc import Sequence

from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_rollout.engine import Completion, Failed, Finish, Sampling, WeightSpan
from accord_rollout.requests.plan import Slot
from accord_rollout.weights.manager import ActiveWeights

_FINISH = {Finish.STOP: types_v1.FINISH_REASON_STOP, Finish.LENGTH: types_v1.FINISH_REASON_LENGTH}


def failure_response(request_id: str, failed: Failed) -> rollout_v1.GenerateResponse:
    """The message of a sample that could not be generated."""
    failure = types_v1.Failure(reason=failed.reason, message=failed.message, retryable=failed.retryable)
    return rollout_v1.GenerateResponse(
        failure=rollout_v1.SampleFailure(request_id=request_id, index=failed.index, failure=failure)
    )


def sample_response(
    request: rollout_v1.GenerateRequest,
    slot: Slot,
    prompt_token_ids: Sequence[int],
    completion: Completion,
    text: str,
    sampling: Sampling,
    active: ActiveWeights,
    engine: str,
) -> rollout_v1.GenerateResponse:
    """The message of a finished sample: one segment per span, or one for the active weights."""
    prompt = request.prompts[slot.prompt_position]
    sample = types_v1.Sample(
        request_id=request.request_id,
        index=slot.index,
        prompt_id=prompt.prompt_id,
        prompt_token_ids=prompt_token_ids,
        response_token_ids=completion.response_token_ids,
        logprobs=completion.logprobs,
        response_mask=[True] * len(completion.response_token_ids),
        text=text,
        finish_reason=_FINISH[completion.finish],
        seed=slot.seed,
        segments=[
            types_v1.Segment(start=span.start, version=span.weights.version, digest=span.weights.digest)
            for span in completion.spans or (WeightSpan(0, active.weights),)
        ],
        sampling=types_v1.SamplingParams(
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
        ),
        tokenizer_fingerprint=active.model.tokenizer_fingerprint,
        prompt=prompt.conversation if prompt.HasField("conversation") else None,
        engine=engine,
    )
    return rollout_v1.GenerateResponse(sample=sample)
