"""The fixtures of the checks: an algorithm on a tiny model, and batches of the experience that it learns from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from pydantic import BaseModel

from accord.digest import weights_digest
from accord.errors import InvalidArgument
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_models.loading import load_causal_lm
from accord_models.tokenizer import fingerprint, load_tokenizer
from accord_trainer.algorithm import Algorithm, Experience, Kind, Start, StepContext, parse_options
from accord_trainer.trainings.weights_digest import published_digest

PROMPTS, SAMPLES, TOKENS = ((5, 6, 7), (8, 9)), 4, 6
# Options that show an effect in one step on a tiny model; they apply where the algorithm has them.
_QUICK = {"learning_rate": 1e-3, "warmup_updates": 0}


@dataclass(frozen=True)
class Bench:
    """Makes fresh trainings of `algorithm` on the model in `folder`. `work` is a folder to write in."""

    algorithm: type[Algorithm]
    options: dict[str, Any]
    folder: Path
    work: Path

    def parse(self, options: dict[str, Any]) -> BaseModel:
        """Options as the trainer reads them from a request."""
        return parse_options(ParseDict(options, Struct()), self.algorithm.options_type)

    def accepts(self, name: str, value: Any) -> bool:
        """Whether the algorithm has this option and takes this value."""
        try:
            self.parse({**self.options, name: value})
        except InvalidArgument:
            return False
        return True

    def make(self, **changes: Any) -> Algorithm:
        """A new training with seed 0. `changes` apply only to options that the algorithm accepts."""
        quick = {name: value for name, value in {**_QUICK, **changes}.items() if self.accepts(name, value)}
        torch.manual_seed(0)
        return self.algorithm(
            Start(self.folder, None, None, reference_is_init=True, seed=0, compute_dtype="float32"),
            self.parse({**quick, **self.options}),
        )

    def batch(self, seed: int = 0, kind: Kind | None = None) -> Experience:
        """A batch of the kind that the algorithm learns from, or of `kind`; the same seed gives the same batch."""
        if (kind or self.algorithm.learns_from) == "samples":
            return Experience(_samples(self.folder, seed), [])
        return Experience([], _preferences(seed))


def context(generator: torch.Generator | None = None, check_stopped: Callable[[], None] = lambda: None) -> StepContext:
    """The context of a step; by default with the generator of seed 0."""
    return StepContext(0, generator or torch.Generator().manual_seed(0), check_stopped)


def digest(algorithm: Algorithm) -> str:
    """The digest of the weights that the algorithm would publish now."""
    return published_digest(algorithm.merged(), algorithm.publish_dtype)


def weights(algorithm: Algorithm) -> torch.Tensor:
    """All trained weights in one vector, float32."""
    return torch.cat([tensor.detach().flatten().float() for _, tensor in sorted(algorithm.state().weights.items())])


def _samples(folder: Path, seed: int) -> list[trainer_v1.ScoredSample]:
    """Samples of the model in `folder` with random scores."""
    model, tokenizer = load_causal_lm(folder), load_tokenizer(folder)
    generator = torch.Generator().manual_seed(seed)
    found: list[trainer_v1.ScoredSample] = []
    for prompt in PROMPTS:
        rows, logprobs = torch.tensor([prompt] * SAMPLES), []
        for _ in range(TOKENS):
            with torch.no_grad():
                distribution = model(input_ids=rows).logits[:, -1].log_softmax(-1)
            tokens = torch.multinomial(distribution.exp(), 1, generator=generator)
            logprobs.append(distribution.gather(1, tokens))
            rows = torch.cat([rows, tokens], dim=1)
        for response, values in zip(rows[:, len(prompt) :].tolist(), torch.cat(logprobs, 1).tolist(), strict=True):
            end = response.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in response else None
            sample = types_v1.Sample(
                request_id="conformance",
                index=len(found),
                prompt_token_ids=prompt,
                response_token_ids=response[:end],
                logprobs=[min(value, 0.0) for value in values[:end]],
                response_mask=[True] * len(response[:end]),
                finish_reason=types_v1.FINISH_REASON_STOP if end else types_v1.FINISH_REASON_LENGTH,
                segments=[types_v1.Segment(start=0, version=0, digest=weights_digest(folder))],
                sampling=types_v1.SamplingParams(max_new_tokens=TOKENS, temperature=1.0),
                tokenizer_fingerprint=fingerprint(tokenizer),
            )
            score = float(torch.rand((), generator=generator))
            found.append(trainer_v1.ScoredSample(score=score, sample=sample))
    return found


def _preferences(seed: int) -> list[trainer_v1.PreferenceExample]:
    """Pairs in which the happy answer is better, alternately first and second."""
    found = []
    for number in range(6):
        answers, ranks = [f"it was a happy day {number + seed}", f"it was a sad night {number + seed}"], [0, 1]
        if number % 2:
            answers, ranks = answers[::-1], ranks[::-1]
        turn = types_v1.ChatMessage(role="user", content=f"how was day {number}?")
        found.append(
            trainer_v1.PreferenceExample(
                prompt=types_v1.Conversation(messages=[turn]), responses=answers, ranks=trainer_v1.Ranks(values=ranks)
            )
        )
    return found
