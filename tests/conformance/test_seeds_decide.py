"""`seeds-decide`: an engine whose samples depend on something else fails, a policy that leaves no choice passes."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.rollout import generate_request, rollout_settings, samples, weights_ref
from tests.support.sdk import Engine, asked, serve
from tests.support.tiny import EOS, make_collapsed_model
from transformers import AutoTokenizer

from accord.channel import open_channel
from accord.conformance.check import Outcome
from accord.conformance.suite import conformance
from accord.conformance.verdict import Verdict
from accord.errors import FailedPrecondition, InvalidArgument
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_controller.engine_swap.acceptance import accept, candidates
from accord_rollout.engine import Job, Sampling
from accord_rollout.engines.transformers.engine import TransformersEngine
from accord_rollout.service import build
from accord_runtime.serving.server import serving

VOCABULARY = 300


class Sampler(Engine):
    """Samples from a uniform distribution, or a `certain` one, by random numbers from `source(prompt seed, j)`."""

    def __init__(self, source: Callable[[int, int], int], *, certain: bool = False, most: float = math.inf) -> None:
        super().__init__()
        self.source, self.certain, self.most = source, certain, most

    async def answer(
        self, request: rollout_v1.GenerateRequest, call: int
    ) -> AsyncIterator[rollout_v1.GenerateResponse]:
        if request.sampling.temperature > self.most:
            raise InvalidArgument.at("sampling.temperature", f"must be at most {self.most}")
        certain = self.certain and request.sampling.temperature < 1000
        for index in asked(request):
            seed, j = request.prompts[index // request.n].seed, index % request.n
            numbers = random.Random(self.source(seed, j))
            ids = [7] * 12 if certain else [numbers.randrange(VOCABULARY) for _ in range(12)]
            yield rollout_v1.GenerateResponse(
                sample=types_v1.Sample(
                    request_id=request.request_id,
                    index=index,
                    response_token_ids=ids,
                    logprobs=[0.0 if certain else -math.log(VOCABULARY)] * 12,
                    seed=1000 * seed + j,
                )
            )


async def seeds_decide(engine: Engine) -> Outcome:
    async with serve(rollout_v1.add_RolloutServiceServicer_to_server, engine) as address:
        (found,) = [one async for one in conformance(address, seconds=5, only=["seeds-decide"])]
    return found


@pytest.mark.parametrize(
    ("source", "certain"),
    [
        (lambda seed, j: 1, False),
        (lambda seed, j: 1, True),
        (lambda seed, j: seed, False),
        (lambda seed, j: j, False),
        (lambda seed, j: 1000 * seed + j if j else 1, False),
    ],
    ids=["none", "none, of a collapsed policy", "the prompt's only", "j only", "not for the first sample"],
)
async def test_an_engine_that_ignores_seeds_is_found_out(source: Callable[[int, int], int], certain: bool) -> None:
    found = await seeds_decide(Sampler(source, certain=certain))
    assert found.verdict is Verdict.unmet
    assert "other seeds gave the same tokens" in found.detail


async def test_an_engine_that_draws_by_its_seeds_meets_it_whatever_the_policy_leaves() -> None:
    assert (await seeds_decide(Sampler(lambda seed, j: 1000 * seed + j))).verdict is Verdict.met
    assert (await seeds_decide(Sampler(lambda seed, j: 1000 * seed + j, certain=True))).verdict is Verdict.met


async def test_it_cannot_be_told_where_neither_the_policy_nor_the_engine_leaves_a_choice() -> None:
    found = await seeds_decide(Sampler(lambda seed, j: 1, certain=True, most=2.0))
    assert found.verdict is Verdict.skipped
    assert "must be at most 2.0" in found.detail


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    """A rollout service with the transformers engine, without weights."""
    settings = rollout_settings(tmp_path / "state")
    async with serving(await build(settings), settings) as address:
        yield address


async def tried(address: str, weights: types_v1.WeightsRef) -> str:
    async with candidates([address], "runs/scaled", 60) as replicas:
        engine = await accept(replicas, weights, engine="", initial=None, current=None, deterministic=False)
        await replicas.release_lease()
    return engine


def collapsed(tmp_path: Path, tiny_folder: Path, says: str) -> types_v1.WeightsRef:
    token = AutoTokenizer.from_pretrained(tiny_folder).convert_tokens_to_ids(says)
    return weights_ref(make_collapsed_model(tmp_path / "collapsed", tiny_folder, token), version=5)


@pytest.mark.parametrize("says", ["!", EOS])
async def test_a_collapsed_policy_can_be_served_by_candidates(
    address: str, tmp_path: Path, tiny_folder: Path, says: str
) -> None:
    weights = collapsed(tmp_path, tiny_folder, says)
    async with open_channel(address) as channel:
        stub = rollout_v1.RolloutServiceStub(channel)
        await stub.UpdateWeights(rollout_v1.UpdateWeightsRequest(request_id="first", weights=weights), timeout=60)
        said = await samples(stub, generate_request(["Hello!", "What is best?"], n=4))
    assert {sample.text for sample in said.values()} == {"" if says == EOS else says * 8}
    assert await tried(address, weights) == "transformers"


async def test_candidates_that_ignore_seeds_are_refused_also_with_a_collapsed_policy(
    address: str, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = TransformersEngine.generate

    def unseeded(self: TransformersEngine, jobs: Sequence[Job], sampling: Sampling) -> AsyncIterator[object]:
        return generate(self, [replace(job, seed=1) for job in jobs], sampling)

    monkeypatch.setattr(TransformersEngine, "generate", unseeded)
    for weights in (weights_ref(tiny_folder), collapsed(tmp_path, tiny_folder, "!")):
        with pytest.raises(FailedPrecondition) as refused:
            await tried(address, weights)
        assert (refused.value.reason, refused.value.metadata["check"]) == ("NOT_CONFORMING", "seeds-decide")
