"""The cost of checking a request with accord.rules, and with protovalidate and the same rules.

    pip install protovalidate                    optional; skipped if it is not installed
    python benchmarks/validation.py [--json FILE]

Three typical valid requests, as the edge of a service sees them. Each side checks the same content; the figure is the
fastest of several repeats, in microseconds per request. `rules` checks the limits of all messages, and required fields.
`edge` is the check of a service: it also clears output-only fields, and leaves the limits of runs and of the records of
long streams to the handlers.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from rich.console import Console
from rich.table import Table

from accord.controller import v1 as controller_v1
from accord.rollout import v1 as rollout_v1
from accord.rules.check import violations
from accord.trainer import v1 as trainer_v1
from accord_runtime.serving import validation

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
REPEATS, SECONDS = 7, 0.2


def create_run() -> Message:
    """A run as a file describes it."""
    request = controller_v1.CreateRunRequest(request_id="r", run=controller_v1.Run(run_id="demo"))
    spec = request.run.spec
    spec.model, spec.iterations = "/models/base", 2
    spec.prompts.files.append("/data/prompts.jsonl")
    spec.feedback.simulated.scorers.add(name="length", scale=2.0)
    spec.feedback.simulated.noise = 0.1
    spec.reward_model.epochs = 1
    spec.policy.steps, spec.policy.samples_per_prompt = 20, 4
    spec.evaluate.max_kl = 10
    spec.rollout.max_new_tokens, spec.rollout.temperature = 32, 1.0
    return request


def generate() -> Message:
    """64 prompts of one turn, 4 samples each."""
    request = rollout_v1.GenerateRequest(request_id="r", n=4)
    request.sampling.max_new_tokens, request.sampling.temperature = 32, 1.0
    for number in range(64):
        prompt = request.prompts.add(prompt_id=str(number))
        prompt.conversation.messages.add(role="user", content="Tell me a story. " * 5)
    return request


def put_experience() -> Message:
    """16 samples of 128 and 256 tokens."""
    request = trainer_v1.PutExperienceRequest(training_id="demo-1-policy")
    for number in range(16):
        scored = request.chunk.samples.add(score=1.0)
        sample = scored.sample
        sample.request_id, sample.index = "r", number
        sample.prompt_token_ids.extend(range(128))
        sample.response_token_ids.extend(range(256))
        sample.logprobs.extend([-1.0] * 256)
        sample.response_mask.extend([True] * 256)
        sample.sampling.max_new_tokens, sample.sampling.temperature = 256, 1.0
        sample.segments.add(digest="0" * 64)
        sample.prompt.messages.add(role="user", content="Tell me a story.")
    return request


REQUESTS: dict[str, Callable[[], Message]] = {
    "CreateRun": create_run,
    "Generate, 64 prompts": generate,
    "PutExperience, 16 samples": put_experience,
}


def microseconds(call: Callable[[], object]) -> float:
    """The time of one call: the fastest of the repeats."""
    call()
    found = []
    for _ in range(REPEATS):
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < SECONDS / REPEATS:
            for _ in range(10):
                call()
            count += 10
        found.append((time.perf_counter() - started) / count)
    return min(found) * 1e6


def with_rules(requests: dict[str, Message]) -> dict[str, Message]:
    """The same requests as messages whose descriptors hold the rules, which the generated code does not."""
    sys.path.append(str(SCRIPTS))
    pool = descriptor_pool.DescriptorPool()
    for file in importlib.import_module("generate").descriptors().file:
        pool.Add(file)
    return {
        name: GetMessageClass(pool.FindMessageTypeByName(request.DESCRIPTOR.full_name)).FromString(
            request.SerializeToString()
        )
        for name, request in requests.items()
    }


def measure() -> list[dict[str, Any]]:
    """One row for each request."""
    requests = {name: make() for name, make in REQUESTS.items()}
    rows: list[dict[str, Any]] = [
        {
            "request": name,
            "bytes": request.ByteSize(),
            "edge": microseconds(partial(validation.check, request)),
            "rules": microseconds(partial(violations, request)),
        }
        for name, request in requests.items()
    ]
    try:
        validate = importlib.import_module("protovalidate").validate
    except ImportError:
        return rows
    for row, request in zip(rows, with_rules(requests).values(), strict=True):
        row["protovalidate"] = microseconds(partial(validate, request))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file as well")
    arguments = parser.parse_args()
    rows = measure()
    table = Table("request", "bytes", *(f"{side}, us" for side in ("edge", "rules", "protovalidate")))
    for row in rows:
        figures = (f"{row[side]:.1f}" if side in row else "" for side in ("edge", "rules", "protovalidate"))
        table.add_row(row["request"], f"{row['bytes']:,}", *figures)
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
