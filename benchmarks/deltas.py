"""The share of a model that a step changes, and the savings of a delta, by learning rate.

    make model
    python benchmarks/deltas.py [--rates 1e-7 1e-6 1e-5 3e-5] [--json FILE]

For each learning rate, a trainer service takes three steps of RLOO on samples of a rollout service (--epochs and the
minibatch of 16 determine the optimizer updates per step), and publishes each for `grpc`, with a delta of any
size. The first has no base. The rollout service fetches the second as a delta and the third as a whole, both over
loopback. Adam moves an element by about the learning rate per update; an element published in bfloat16 changes only
if that is enough to round to a different number.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import accord
from accord.conversations import conversation
from accord.digest import weights_digest
from accord.rollout import v1 as rollout_v1
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_rollout.service import build as build_rollout
from accord_rollout.settings import RolloutSettings
from accord_runtime.serving.server import serving
from accord_trainer.service import build as build_trainer
from accord_trainer.settings import TrainerSettings

ROOT = Path(__file__).resolve().parent.parent
LONG = 3600.0


async def measure(state: Path, arguments: argparse.Namespace, rate: float) -> dict[str, Any]:
    """One training of three steps, and the transfer of the second and the third to the rollout service."""
    model: Path = arguments.model.absolute()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    trains = TrainerSettings(state_dir=state / "trainer", port=port, scheme="grpc", delta_below=1.0, threads=1)
    draws = RolloutSettings(state_dir=state / "rollout", model=model, threads=1)
    async with (
        serving(await build_trainer(trains), trains) as trainer,
        serving(await build_rollout(draws), draws) as rollout,
        accord.Client(trainer=trainer, rollout=rollout) as client,
    ):
        training = trainer_v1.Training(
            training_id="t",
            algorithm="rloo",
            init=types_v1.WeightsRef(uri=model.as_uri(), digest=weights_digest(model)),
        )
        training.options.update(
            {
                "learning_rate": rate,
                "warmup_updates": 0,
                "epochs": arguments.epochs,
                "publish_dtype": arguments.publish_dtype,
            }
        )
        await client.trainer.create_training(training, timeout=LONG)
        results, answers = [], []
        for version in range(3):
            put = await client.trainer.put_experience("t", samples=await draw(client, arguments, version))
            result = await client.trainer.step("t", put.batch_id, parent_version=version, publish=True, timeout=LONG)
            ref = types_v1.WeightsRef()
            ref.CopyFrom(result.weights)
            if version == 2:
                ref.ClearField("delta")
            answer = await client.rollout.update_weights(ref, timeout=LONG)
            assert answer.resident_weights.digest in ("", result.digest)
            results.append(result)
            answers.append(answer)
    second = results[1]
    return {
        "learning_rate": rate,
        **{name: second.metrics[name] for name in ("delta_changed", "delta_bytes", "whole_bytes", "delta_seconds")},
        "by": "delta" if answers[1].uri.endswith(".delta") else "whole",
        "second_seconds": answers[1].prepare_seconds,
        "whole_seconds": answers[2].prepare_seconds,
    }


async def draw(client: accord.Client, arguments: argparse.Namespace, version: int) -> list[trainer_v1.ScoredSample]:
    """Samples of the active weights; the score is the share of their tokens that occur for the first time."""
    lines = (ROOT / "examples" / "prompts.jsonl").read_text().splitlines()
    first = version * arguments.prompts
    prompts = [
        rollout_v1.Prompt(prompt_id=f"p{at}", conversation=conversation(json.loads(lines[at])["prompt"]), seed=at)
        for at in range(first, first + arguments.prompts)
    ]
    sampling = types_v1.SamplingParams(max_new_tokens=arguments.tokens)
    found = []
    async for response in client.rollout.generate(prompts, sampling=sampling, n=4, timeout=LONG):
        ids = response.sample.response_token_ids
        found.append(trainer_v1.ScoredSample(sample=response.sample, score=len(set(ids)) / len(ids)))
    return sorted(found, key=lambda each: each.sample.index)


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """A table for people."""
    table = Table("learning rate", "changed", "delta, MB", "whole, MB", "found, written, s", "by delta, s", "whole, s")
    for row in rows:
        table.add_row(
            f"{row['learning_rate']:g}",
            f"{row['delta_changed']:.2%}",
            f"{row['delta_bytes'] / 1e6:.1f}",
            f"{row['whole_bytes'] / 1e6:.1f}",
            f"{row['delta_seconds']:.2f}",
            f"{row['second_seconds']:.2f}" if row["by"] == "delta" else "not published",
            f"{row['whole_seconds']:.2f}",
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / ".accord/models/smollm2-135m-instruct", help="the policy")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-7, 1e-6, 1e-5, 3e-5], help="learning rates")
    parser.add_argument("--publish-dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--prompts", type=int, default=8, help="prompts per step, 4 samples each")
    parser.add_argument("--tokens", type=int, default=24, help="maximum of new tokens per sample")
    parser.add_argument("--epochs", type=int, default=2, help="passes over a step's samples")
    parser.add_argument("--json", type=Path, help="write the figures to this file as JSON")
    arguments = parser.parse_args()
    rows = []
    for rate in arguments.rates:
        with tempfile.TemporaryDirectory(prefix="accord-deltas-") as folder:
            rows.append(asyncio.run(measure(Path(folder), arguments, rate)))
    show(rows, Console())
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
