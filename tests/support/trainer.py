"""A trainer for tests: a real server on port 0, samples of a real (tiny) model, small requests."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import torch
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

import accord
from accord.digest import weights_digest
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_models.loading import load_causal_lm
from accord_models.tokenizer import fingerprint, load_tokenizer
from accord_runtime.serving.server import serving
from accord_trainer.service import build
from accord_trainer.settings import TrainerSettings

_ids = itertools.count()
TINY = {"learning_rate": 1e-3, "warmup_updates": 0, "micro_batch_tokens": 256}


def request_id() -> str:
    """A request_id that no other call of this process has."""
    return f"request-{next(_ids)}"


def weights_ref(folder: Path, version: int = 0) -> types_v1.WeightsRef:
    """The folder as weights."""
    return types_v1.WeightsRef(uri=folder.resolve().as_uri(), version=version, digest=weights_digest(folder))


def struct(options: dict[str, object]) -> Struct:
    """Options as a request carries them."""
    return ParseDict(options, Struct())


def training(folder: Path, training_id: str = "t", algorithm: str = "ppo", **fields: object) -> trainer_v1.Training:
    """A training of the model in `folder`; `options` are added to the tests' defaults."""
    defaults = {} if algorithm == "reward_probe" else TINY  # it takes no options of gradient descent
    options = {**defaults, **fields.pop("options", {})}  # type: ignore[dict-item]
    return trainer_v1.Training(
        training_id=training_id,
        algorithm=algorithm,
        init=weights_ref(folder),
        options=struct(options),
        compute_dtype="float32",
        **fields,  # type: ignore[arg-type]
    )


@asynccontextmanager
async def trainer(state_dir: Path, **settings: object) -> AsyncIterator[accord.Client]:
    """A client of a trainer that keeps its state in `state_dir`."""
    chosen = TrainerSettings(state_dir=state_dir, threads=1, **settings)  # type: ignore[arg-type]
    async with serving(await build(chosen), chosen) as address, accord.Client(trainer=address) as client:
        yield client


def rollout(
    folder: Path,
    *,
    prompts: Sequence[Sequence[int]] = ((5, 6, 7), (8, 9)),
    samples: int = 2,
    tokens: int = 6,
    version: int = 0,
    digest: str = "",
    seed: int = 0,
    temperature: float = 1.0,
    below: int = 0,
) -> list[trainer_v1.ScoredSample]:
    """Samples of the model in `folder`, scored by the part of their tokens with an id `below` (0: at random)."""
    model, tokenizer = load_causal_lm(folder), load_tokenizer(folder)
    generator = torch.Generator().manual_seed(seed)
    digest = digest or weights_digest(folder)
    found: list[trainer_v1.ScoredSample] = []
    for prompt in prompts:
        rows = torch.tensor([list(prompt)] * samples)
        logprobs = []
        for _ in range(tokens):
            with torch.no_grad():
                distribution = (model(input_ids=rows).logits[:, -1] / temperature).log_softmax(-1)
            next_token_B1 = torch.multinomial(distribution.exp(), 1, generator=generator)
            logprobs.append(distribution.gather(1, next_token_B1))
            rows = torch.cat([rows, next_token_B1], dim=1)
        for row, chosen in zip(rows[:, len(prompt) :].tolist(), torch.cat(logprobs, 1).tolist(), strict=True):
            stop = row.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in row else None
            response = row[:stop]
            score = sum(token < below for token in response) / len(response)
            if not below:
                score = float(torch.rand((), generator=generator))
            found.append(
                trainer_v1.ScoredSample(
                    score=score,
                    sample=types_v1.Sample(
                        request_id="r",
                        index=len(found),
                        prompt_token_ids=prompt,
                        response_token_ids=response,
                        logprobs=[min(x, 0.0) for x in chosen[:stop]],
                        response_mask=[True] * len(response),
                        finish_reason=types_v1.FINISH_REASON_STOP if stop else types_v1.FINISH_REASON_LENGTH,
                        segments=[types_v1.Segment(start=0, version=version, digest=digest)],
                        sampling=types_v1.SamplingParams(max_new_tokens=tokens, temperature=temperature),
                        tokenizer_fingerprint=fingerprint(tokenizer),
                    ),
                )
            )
    return found


def pairs(count: int, good: str = "happy day", bad: str = "sad night") -> list[trainer_v1.PreferenceExample]:
    """Pairs that a word tells apart; the better answer is now first, now second."""
    examples = []
    for i in range(count):
        answers = [f"it was a {good} {i}", f"it was a {bad} {i}"]
        examples.append(
            trainer_v1.PreferenceExample(
                prompt=types_v1.Conversation(messages=[types_v1.ChatMessage(role="user", content=f"how was day {i}")]),
                responses=answers if i % 2 == 0 else answers[::-1],
                ranks=trainer_v1.Ranks(values=[0, 1] if i % 2 == 0 else [1, 0]),
                source=f"set{i % 2}",
            )
        )
    return examples
