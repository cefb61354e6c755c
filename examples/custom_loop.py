"""PPO in one page, with the SDK and without the controller. Write your own loop if ours does not fit.

    python -m accord_rollout & python -m accord_reward & python -m accord_trainer &
    python examples/custom_loop.py --model .accord/models/smollm2-135m-instruct --prompts examples/prompts.jsonl

Uses the services on this machine, or those at the given addresses. The policy learns to sound positive (scorer
`sentiment`); replace it with any scorer, including your own: --scorer python:./examples/reward.py:score.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from pathlib import Path

import accord
from accord.digest import weights_digest
from accord.errors import AccordError
from accord.formats import read
from accord.reward import v1 as reward_v1
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1


async def loop(client: accord.Client, args: argparse.Namespace) -> types_v1.WeightsRef:
    """`args.steps` times: generate, score, step, publish, update. Returns the last weights."""
    prompts = [record.prompt for record in read(args.prompts).records]
    chooser = random.Random(args.seed)
    weights = types_v1.WeightsRef(uri=args.model.resolve().as_uri(), digest=weights_digest(args.model), format="merged")
    sampling = types_v1.SamplingParams(max_new_tokens=args.max_new_tokens, temperature=1.0)
    training = await client.trainer.create_training(
        trainer_v1.Training(training_id=args.name, algorithm="ppo", init=weights, seed=args.seed)
    )
    if training.version:
        sys.exit(f"error: training {args.name} has already taken {training.version} steps; choose another --name")
    await client.rollout.update_weights(weights)

    for step in range(args.steps):
        started = time.monotonic()
        # The request_id decides the seeds: the same name, version and prompts give the same samples.
        samples, lost = await generate(
            client, chooser.sample(prompts, min(args.prompts_per_step, len(prompts))), args, sampling, step
        )
        scored, unscored = await score(client, samples, args.scorer)
        batch = await client.trainer.put_experience(args.name, samples=scored)
        result = await client.trainer.step(args.name, batch.batch_id, parent_version=step, publish=True)
        weights = result.weights
        await client.rollout.update_weights(weights)
        print(
            f"step {result.version:3d}  score {sum(s.score for s in scored) / len(scored):+.3f}  "
            f"kl {result.metrics['kl_k1']:+.3f}  samples {len(scored)}  failed {lost + unscored}  "
            f"{time.monotonic() - started:.1f} s",
            flush=True,
        )
    return weights


async def generate(
    client: accord.Client,
    prompts: list[types_v1.Conversation],
    args: argparse.Namespace,
    sampling: types_v1.SamplingParams,
    step: int,
) -> tuple[list[types_v1.Sample], int]:
    """The samples of one step, and the number that failed. `version` excludes all weights except the newest."""
    samples, failures = [], 0
    async for response in client.rollout.generate(
        prompts, n=args.samples_per_prompt, sampling=sampling, request_id=f"{args.name}-{step}", version=step
    ):
        if response.HasField("sample"):
            samples.append(response.sample)
        else:
            failures += 1
    return sorted(samples, key=lambda sample: sample.index), failures


async def score(
    client: accord.Client, samples: list[types_v1.Sample], scorer: str
) -> tuple[list[trainer_v1.ScoredSample], int]:
    """Samples with their scores. Those whose scoring failed are omitted and counted: a failure is never a zero."""
    cut = types_v1.FINISH_REASON_LENGTH
    items = [
        reward_v1.ScoreItem(prompt=sample.prompt, response=sample.text, truncated=sample.finish_reason == cut)
        for sample in samples
    ]
    results = await client.reward.score(items, scorers=[reward_v1.ScorerSpec(name=scorer)])
    scored = [
        trainer_v1.ScoredSample(sample=sample, score=result.score.value)
        for sample, result in zip(samples, results, strict=True)
        if result.HasField("score")
    ]
    if not scored:
        sys.exit(f"error: no sample could be scored: {results[0].failure.message if results else 'none was generated'}")
    return scored, len(samples) - len(scored)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for service in ("rollout", "reward", "trainer"):
        parser.add_argument(f"--{service}", metavar="HOST:PORT", help="default: the service on this machine")
    parser.add_argument("--model", type=Path, required=True, help="folder of the model to start from")
    parser.add_argument("--prompts", type=Path, required=True, help='JSONL file of {"prompt": ...}')
    parser.add_argument("--name", default=f"custom-{time.strftime('%Y%m%d-%H%M%S')}", help="of the training")
    parser.add_argument("--scorer", default="sentiment")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--prompts-per-step", type=int, default=8)
    parser.add_argument("--samples-per-prompt", type=int, default=4)
    parser.add_argument("--max-new-tokens", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    here = accord.discovery.addresses()
    client = accord.Client(
        rollout=args.rollout or here.get("rollout"),
        reward=args.reward or here.get("reward"),
        trainer=args.trainer or here.get("trainer"),
    )
    try:
        async with client:
            weights = await loop(client, args)
    except AccordError as error:
        sys.exit(f"error: {error}")
    print(f"weights: {weights.uri}")


if __name__ == "__main__":
    asyncio.run(main())
