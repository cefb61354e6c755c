"""Reward models on real human comparisons, trained and served through Accord's services, compared with a TF-IDF
baseline.

    python benchmarks/reward_model.py --data DIR [--json FILE] [--policy-steps N]

DIR holds <source>_train.jsonl and <source>_test.jsonl (prompt, chosen, rejected) for the sources harmless, pandalm and
llmbar, and, for policy steps, prompts.jsonl. All steps are those of an ordinary user: preferences are imported and
frozen in a snapshot, the trainer fits a model for each source (as the baseline does), the reward service loads the
published models and scores the test files. The benchmark starts the services that it needs and stops them. After an
interruption it fits only the missing models; the mixture of the models judges the policy steps.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import human_data
import models
import tfidf
from policy import Answer, Policy, PolicyStep
from rich.console import Console
from rich.table import Table
from training import Recipe, differences, example, scorer, train

import accord
from accord.cli.local.session import open_session
from accord.cli.options import Interrupted, run_async
from accord.errors import AccordError
from accord.preference import v1 as preference_v1
from accord.reward import v1 as reward_v1
from accord.trainer import v1 as trainer_v1

HELDOUT_PROMPTS = 32


@dataclass
class Result:
    """The measurements. Accuracies by source and on the `mix`, 0 to 1."""

    train_pairs: int
    test_pairs: int
    baseline: dict[str, float]
    reward_model: dict[str, float] = field(default_factory=dict)
    train_seconds: float = 0.0
    model: str = ""
    digests: dict[str, str] = field(default_factory=dict)
    policy_steps: list[PolicyStep] = field(default_factory=list)
    before: list[Answer] = field(default_factory=list)
    after: list[Answer] = field(default_factory=list)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the JSONL files")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--model", type=Path, default=models.POLICY, help="the initial model of the reward model")
    parser.add_argument("--blocks", type=int, default=16, help="lower blocks of the model that read; 0: all")
    parser.add_argument("--max-tokens", type=int, default=448, help="longer conversations lose their beginning")
    parser.add_argument("--penalty", type=float, default=2000.0, help="of the fit: of the head's squared norm")
    parser.add_argument("--seed", type=int, default=0, help="of the policy steps")
    parser.add_argument("--limit", type=int, help="use only this many training pairs of each source (for a quick look)")
    parser.add_argument("--policy", type=Path, default=models.POLICY, help="the policy to tune")
    parser.add_argument("--policy-steps", type=int, default=0, help="PPO steps of the policy against the reward model")
    parser.add_argument("--state-dir", type=Path, help="where the services keep state (default: .accord/benchmark)")
    given = parser.parse_args()
    if given.state_dir is None:  # a quick look must not leave its records in the folder of the full benchmark
        given.state_dir = Path(f".accord/benchmark-{given.limit}" if given.limit else ".accord/benchmark")
    return given


async def run(given: argparse.Namespace, console: Console) -> Result:
    encoder = models.present(given.model)
    policy = models.present(given.policy) if given.policy_steps else None
    records = {source: human_data.read(given.data, source, "train") for source in human_data.SOURCES}
    if given.limit:
        records = {source: found[: given.limit] for source, found in records.items()}
    train_pairs = human_data.pairs([record for found in records.values() for record in found])
    test_pairs = human_data.pairs(
        [r for source in human_data.SOURCES for r in human_data.read(given.data, source, "test")]
    )
    console.print(f"{len(train_pairs)} pairs to learn from, {len(test_pairs)} held out")
    result = Result(
        len(train_pairs),
        len(test_pairs),
        human_data.accuracy(test_pairs, tfidf.differences(train_pairs, test_pairs)),
        model=encoder.name,
    )
    console.print(f"TF-IDF baseline on the mix: {result.baseline['mix']:.3f}")
    recipe = Recipe(encoder, given.blocks, given.max_tokens, given.penalty)
    names = ["preference", "trainer", "reward", *(["rollout"] if policy else [])]
    async with open_session(given.state_dir.absolute()) as session:
        client = await session.services(*names)
        examples = await imported(client, records, console)
        started = time.monotonic()
        weights = await watched(client, examples, recipe, console)
        result.train_seconds = time.monotonic() - started
        result.digests = {source: ref.digest for source, ref in weights.items()}
        for ref in weights.values():
            await client.reward.load_model(ref)
        scorers = {source: scorer(ref.digest, recipe.max_tokens) for source, ref in weights.items()}
        console.print("scoring the held-out pairs")
        result.reward_model = human_data.accuracy(test_pairs, await judged(client, test_pairs, scorers))
        console.print(f"reward models on the mix: {result.reward_model['mix']:.3f}")
        if policy is not None:
            await tune(client, given, policy, list(scorers.values()), result, console)
    return result


async def imported(
    client: accord.Client, records: dict[str, list[preference_v1.ImportRecord]], console: Console
) -> list[trainer_v1.PreferenceExample]:
    """Imports, freezes and reads back the training pairs. The test files are the held-out side, so both sides of the
    snapshot's own split are learned from."""
    answer = await client.preferences.import_records(record for found in records.values() for record in found)
    snapshot = await client.preferences.create_snapshot(
        preference_v1.SNAPSHOT_KIND_PREFERENCES, preference_v1.SnapshotFilter(sources=list(records))
    )
    console.print(
        f"imported: {answer.feedback} new comparisons, {answer.duplicates} known ones; snapshot {snapshot.digest[:12]}"
    )
    return [example(record) async for record in client.preferences.export_snapshot(snapshot.digest)]


async def watched(
    client: accord.Client, examples: list[trainer_v1.PreferenceExample], recipe: Recipe, console: Console
) -> dict[str, accord.types.v1.WeightsRef]:
    """A model for each source, the smallest first, which gives an early estimate of the time."""
    groups = {source: [one for one in examples if one.source == source] for source in human_data.SOURCES}
    found: dict[str, accord.types.v1.WeightsRef] = {}
    started, done = time.monotonic(), 0
    for source in sorted(groups, key=lambda source: len(groups[source])):
        console.print(f"reward model of {source}: {len(groups[source])} pairs")
        found[source], step = await train(client, groups[source], recipe)
        done += len(groups[source])
        seconds = time.monotonic() - started
        console.print(
            f"  fitted: loss {step.metrics['loss']:.3f}, accuracy {step.metrics['accuracy']:.3f} on these pairs"
            f"  {done}/{len(examples)} pairs in {seconds / 60:.1f} min"
            f"  ETA {seconds / done * (len(examples) - done) / 60:.1f} min"
        )
    return found


async def judged(
    client: accord.Client, pairs: list[human_data.Pair], scorers: dict[str, reward_v1.ScorerSpec]
) -> list[float]:
    """The score difference of each pair (chosen less rejected) by the model of its source."""
    found: dict[int, float] = {}
    for source, spec in scorers.items():
        at = [index for index, pair in enumerate(pairs) if pair.source == source]
        found.update(zip(at, await differences(client, [pairs[index] for index in at], [spec]), strict=True))
    return [found[index] for index in range(len(pairs))]


async def tune(
    client: accord.Client,
    given: argparse.Namespace,
    model: Path,
    scorers: list[reward_v1.ScorerSpec],
    result: Result,
    console: Console,
) -> None:
    """PPO steps; the first prompts of the file are held out and answered before and after."""
    texts = [record.prompt.messages[-1].content for record in accord.formats.read(given.data / "prompts.jsonl").records]
    short = [text for text in texts if len(text) <= 200]
    heldout, prompts = short[:HELDOUT_PROMPTS], short[HELDOUT_PROMPTS:]
    policy = Policy(client, model, scorers, given.seed)
    await policy.start(prompts[: 2 * HELDOUT_PROMPTS])
    result.before = await policy.answers(heldout)
    started = time.monotonic()
    async for step in policy.steps(prompts, given.policy_steps):
        result.policy_steps.append(step)
        left = (time.monotonic() - started) / step.step * (given.policy_steps - step.step)
        console.print(
            f"policy step {step.step}/{given.policy_steps}  reward {step.reward:+.3f}  KL {step.kl_nats:.2f} nats"
            f"  ETA {left / 60:.0f} min"
        )
    result.after = await policy.answers(heldout)


def show(result: Result, console: Console) -> None:
    table = Table(
        title=f"Accuracy on {result.test_pairs} held-out human comparisons ({result.train_pairs} to learn from)"
    )
    table.add_column("source")
    table.add_column("TF-IDF + length", justify="right")
    table.add_column(f"reward models ({result.model})", justify="right")
    for name in (*human_data.SOURCES, "mix"):
        table.add_row(
            name, f"{result.baseline[name]:.3f}", f"{result.reward_model[name]:.3f}", end_section=name == "llmbar"
        )
    console.print(table)
    if result.policy_steps:
        before, after = (sum(a.reward for a in found) / len(found) for found in (result.before, result.after))
        console.print(
            f"policy: reward on {len(result.before)} held-out prompts {before:+.3f} before, {after:+.3f} after "
            f"{len(result.policy_steps)} PPO steps; KL to the base {result.policy_steps[-1].kl_nats:.2f} nats; "
            "the reward's unit is its deviation over the base model's answers"
        )
        for old, new in list(zip(result.before, result.after, strict=True))[:3]:
            console.print(f"\n{old.prompt}\n  before: {old.text}\n  after:  {new.text}", markup=False)


def main() -> None:
    given = arguments()
    console = Console()
    try:
        result = run_async(run(given, console))
    except AccordError as error:
        sys.exit(f"{error.message} [{error.reason}]")
    except Interrupted:
        sys.exit("interrupted; repeat the command to fit the missing models")
    show(result, console)
    if given.json:
        given.json.write_text(json.dumps(asdict(result), indent=2) + "\n")
    if result.reward_model["mix"] <= result.baseline["mix"]:
        sys.exit("the reward models do not beat the baseline")


if __name__ == "__main__":
    main()
