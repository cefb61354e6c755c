"""`accord sample`: generates answers with a model of the registry."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accord.cli.options import Format, options, run_async

if TYPE_CHECKING:
    from accord.client import Client
    from accord.rollout import v1 as rollout_v1
    from accord.types import v1 as types_v1

# Long enough to load a large model; released once the answers are generated.
LEASE_SECONDS = 600.0


def sample(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model, as in `accord models list`.")],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The prompt; `-` reads it from stdin.")],
    count: Annotated[int, typer.Option("-n", min=1, max=256, help="Number of answers.")] = 1,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, help="Maximum length of an answer, in tokens.")
    ] = 128,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.0, help="Sampling temperature; 0 is greedy.")
    ] = 0.7,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="The same seed gives the same answers.")] = None,
    system: Annotated[str, typer.Option("--system", help="A system turn before the prompt.")] = "",
    format: Annotated[
        Format, typer.Option("--format", "-f", help="json adds seeds, tokens and weights.")
    ] = Format.table,
) -> None:
    """Generate answers with a promoted policy or a base model."""
    from accord.conversations import conversation
    from accord.rollout import v1 as rollout_v1
    from accord.types import v1 as types_v1

    text = sys.stdin.read() if prompt == "-" else prompt
    if not text.strip():
        raise typer.BadParameter("the prompt is empty", param_hint="PROMPT")
    turns = [("system", system)] if system else []
    request = rollout_v1.Prompt(conversation=conversation([*turns, ("user", text)]), seed=seed)
    sampling = types_v1.SamplingParams(max_new_tokens=max_new_tokens, temperature=temperature)
    run_async(_sample(options(context).state_dir, model, request, count, sampling, format))


async def _sample(
    state_dir: Path, name: str, prompt: rollout_v1.Prompt, count: int, sampling: types_v1.SamplingParams, format: Format
) -> None:
    from accord.cli.local.session import open_session
    from accord.cli.render.output import clean, err, print_json

    async with open_session(state_dir) as session:
        model = await session.client.models.get(name)
        with err().status(f"Loading {model.name} ..."):
            client = await session.services("rollout")
            samples = await _answers(client, model.weights, prompt, count, sampling)
    if format is Format.json:
        print_json([_shape(model.name, found) for found in samples])
        return
    for index, found in enumerate(samples):
        if count > 1:
            print(f"[{index + 1}]")
        print(clean(found.text) if sys.stdout.isatty() else found.text)


async def _answers(
    client: Client,
    weights: types_v1.WeightsRef,
    prompt: rollout_v1.Prompt,
    count: int,
    sampling: types_v1.SamplingParams,
) -> list[types_v1.Sample]:
    """Answers of these weights, in order. FailedPrecondition, LEASE_HELD, while a run uses the engine."""
    from accord.errors import Internal

    # Only the holder of the lease may change the engine's weights: this must never happen during a run.
    lease = await client.rollout.acquire_lease(f"sample/{uuid.uuid4().hex[:8]}", ttl_seconds=LEASE_SECONDS)
    try:
        status = await client.rollout.status()
        if not status.ready or status.digest != weights.digest:
            await client.rollout.update_weights(weights, lease_token=lease.token)
        found: dict[int, types_v1.Sample] = {}
        async for response in client.rollout.generate([prompt], sampling=sampling, n=count, lease_token=lease.token):
            if response.HasField("failure"):
                failure = response.failure.failure
                raise Internal(f"no answer: {failure.message}", reason=failure.reason)
            found[response.sample.index] = response.sample
    finally:
        await client.rollout.release_lease(lease.token)
    return [found[index] for index in sorted(found)]


def _shape(name: str, found: types_v1.Sample) -> dict[str, object]:
    from accord.names import enum_name
    from accord.types import v1 as types_v1

    return {
        "model": name,
        "text": found.text,
        "tokens": len(found.response_token_ids),
        "finish_reason": enum_name(types_v1.FinishReason, found.finish_reason),
        "seed": found.seed,
        "logprob": sum(found.logprobs),
        "version": found.segments[0].version if found.segments else None,
        "digest": found.segments[0].digest if found.segments else None,
    }
