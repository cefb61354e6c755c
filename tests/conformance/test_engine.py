"""One suite for every Python rollout engine that is installed: what the seam (accord_rollout/engine.py) promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support.engines import SHARED, make_engine
from tests.support.recompute import recomputed_logprobs
from tests.support.rollout import user
from tests.support.tiny import make_tiny_model

from accord import plugins
from accord.digest import weights_digest
from accord.errors import FailedPrecondition, InvalidArgument
from accord_rollout.engine import PROBE_TOKENS, Completion, Engine, Failed, Finish, Job, ModelInfo, Sampling, Weights

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", head_dim=32)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Callable[[str], Awaitable[Engine]]]:
    """Engines that serve all tests here, made when they are first asked for."""
    made: dict[str, Engine] = {}
    async with AsyncExitStack() as stack:

        async def get(name: str) -> Engine:
            if name not in made:
                made[name] = await stack.enter_async_context(make_engine(name, tmp_path_factory.mktemp(name)))
            return made[name]

        yield get


@pytest_asyncio.fixture(params=plugins.names("accord.engines"), loop_scope="module")
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    async with make_engine(request.param, tmp_path) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def loaded(
    request: pytest.FixtureRequest, engine: Engine, folder: Path, shared: Callable[[str], Awaitable[Engine]]
) -> Engine:
    name = request.node.callspec.params["engine"]
    ready = await shared(name) if name in SHARED else engine
    await activate(ready, folder)
    return ready


async def activate(engine: Engine, folder: Path, version: int = 0) -> ModelInfo:
    return await (await engine.prepare(folder, Weights(version, weights_digest(folder))))()


def jobs(engine: Engine, count: int, first_seed: int = 0) -> list[Job]:
    texts = ["a", "What is the best way?", "hello there", "I love this happy day " * 3]
    return [
        Job(index, tuple(engine.render(user(texts[index % len(texts)]))), first_seed + index) for index in range(count)
    ]


async def completions(engine: Engine, work: list[Job], sampling: Sampling) -> dict[int, Completion]:
    results: dict[int, Completion] = {}
    async with aclosing(engine.generate(work, sampling)) as stream:
        async for result in stream:
            assert isinstance(result, Completion), result
            assert result.index not in results
            results[result.index] = result
    return results


def assert_same(engine: Engine, first: dict[int, Completion], second: dict[int, Completion]) -> None:
    """Bit for bit where a request is never mixed with another, else up to what other neighbours do to rounding."""
    if engine.max_concurrent_requests == 1:
        assert first == second
    assert sorted(first) == sorted(second)
    for index, one in first.items():
        assert one.response_token_ids == second[index].response_token_ids
        assert one.logprobs == pytest.approx(second[index].logprobs, abs=1e-4)


async def truncated(engine: Engine, work: list[Job], sampling: Sampling) -> dict[int, Completion]:
    """Samples with top_k or top_p. Skips where the engine refuses them rather than give other logprobs."""
    try:
        return await completions(engine, work, sampling)
    except FailedPrecondition as refused:
        if refused.reason != "SERVER_LOGPROBS_RAW":
            raise
        pytest.skip("refused: the server's logprobs are those before truncation")


async def test_at_least_the_transformers_engine_is_held_to_this_suite() -> None:
    assert "transformers" in plugins.names("accord.engines")


async def test_each_job_has_one_result_with_a_logprob_for_each_token(loaded: Engine) -> None:
    results = await completions(loaded, jobs(loaded, 7), Sampling(max_new_tokens=5))
    assert sorted(results) == list(range(7))
    for result in results.values():
        assert 1 <= len(result.response_token_ids) <= 5
        assert len(result.logprobs) == len(result.response_token_ids)
        assert all(logprob <= 0 for logprob in result.logprobs)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
async def test_logprobs_are_those_of_the_sampled_distribution(loaded: Engine, folder: Path, temperature: float) -> None:
    work = jobs(loaded, 4)
    results = await completions(loaded, work, Sampling(max_new_tokens=6, temperature=temperature))
    for job in work:
        result = results[job.index]
        expected = recomputed_logprobs(folder, list(job.prompt_token_ids), list(result.response_token_ids), temperature)
        assert result.logprobs == pytest.approx(expected, abs=1e-4)


async def test_top_k_logprobs_are_those_of_the_truncated_distribution(loaded: Engine, folder: Path) -> None:
    work = jobs(loaded, 4)
    results = await truncated(loaded, work, Sampling(max_new_tokens=6, top_k=3))
    for job in work:
        result = results[job.index]
        expected = recomputed_logprobs(folder, list(job.prompt_token_ids), list(result.response_token_ids), top_k=3)
        assert result.logprobs == pytest.approx(expected, abs=1e-4)


async def test_greedy_takes_the_likeliest_token_whatever_the_seed(loaded: Engine, folder: Path) -> None:
    first = await completions(loaded, jobs(loaded, 4, first_seed=1), Sampling(max_new_tokens=6, temperature=0))
    second = await completions(loaded, jobs(loaded, 4, first_seed=99), Sampling(max_new_tokens=6, temperature=0))
    assert_same(loaded, first, second)
    job = jobs(loaded, 1)[0]
    response = list(first[0].response_token_ids)
    assert first[0].logprobs == pytest.approx(
        recomputed_logprobs(folder, list(job.prompt_token_ids), response), abs=1e-4
    )
    top_1 = await truncated(loaded, jobs(loaded, 4), Sampling(max_new_tokens=6, top_k=1))
    assert {i: r.response_token_ids for i, r in top_1.items()} == {i: r.response_token_ids for i, r in first.items()}


async def test_same_seeds_same_tokens_other_seeds_others(loaded: Engine) -> None:
    sampling = Sampling(max_new_tokens=6)
    first = await completions(loaded, jobs(loaded, 6), sampling)
    assert_same(loaded, await completions(loaded, jobs(loaded, 6), sampling), first)
    other = await completions(loaded, jobs(loaded, 6, first_seed=1000), sampling)
    assert all(other[i].response_token_ids != first[i].response_token_ids for i in first)


async def test_a_sample_alone_has_the_tokens_it_had_in_company(loaded: Engine) -> None:
    work, sampling = jobs(loaded, 6), Sampling(max_new_tokens=6)
    together = await completions(loaded, work, sampling)
    for job in work:
        alone = await completions(loaded, [job], sampling)
        assert alone[job.index].response_token_ids == together[job.index].response_token_ids
        assert alone[job.index].logprobs == pytest.approx(together[job.index].logprobs, abs=1e-4)


async def test_samples_follow_the_model_distribution(loaded: Engine, folder: Path) -> None:
    prompt = tuple(loaded.render(user("a")))
    work = [Job(index, prompt, index) for index in range(240)]
    first = [r.response_token_ids[0] for r in (await completions(loaded, work, Sampling(1, temperature=0.3))).values()]
    likeliest = max(set(first), key=first.count)
    expected = recomputed_logprobs(folder, list(prompt), [likeliest], 0.3)[0]
    share, probability = first.count(likeliest) / len(first), 2.718281828**expected
    assert 0.05 < probability < 0.95, "the test needs a token that is neither rare nor certain"
    assert abs(share - probability) < 4 * (probability * (1 - probability) / len(first)) ** 0.5


async def test_end_of_sequence_belongs_to_the_response_and_stops_it(loaded: Engine) -> None:
    stopped = limited = 0
    eos = 2
    results = await completions(loaded, jobs(loaded, 64), Sampling(max_new_tokens=40, temperature=2.0))
    for result in results.values():
        if result.finish is Finish.STOP:
            stopped += 1
            assert result.response_token_ids.index(eos) == len(result.response_token_ids) - 1
        else:
            limited += 1
            assert len(result.response_token_ids) == 40
            assert eos not in result.response_token_ids
    assert stopped
    assert limited


async def test_nucleus_keeps_only_the_likeliest_tokens(loaded: Engine) -> None:
    narrow = await truncated(loaded, jobs(loaded, 4), Sampling(max_new_tokens=6, top_p=1e-6))
    greedy = await completions(loaded, jobs(loaded, 4), Sampling(max_new_tokens=6, temperature=0))
    for index, result in narrow.items():
        assert result.response_token_ids == greedy[index].response_token_ids
        assert result.logprobs == pytest.approx([0.0] * 6, abs=1e-6)


async def test_closing_the_stream_stops_the_work(loaded: Engine) -> None:
    long = Sampling(max_new_tokens=200)
    stream = loaded.generate(jobs(loaded, 400), long)
    pending = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.2)
    pending.cancel()
    await asyncio.gather(pending, return_exceptions=True)
    await stream.aclose()
    async with asyncio.timeout(20):  # the rest would take longer
        await completions(loaded, jobs(loaded, 1), Sampling(max_new_tokens=1))


async def test_new_weights_take_over_and_give_what_a_fresh_engine_gives(loaded: Engine, tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "other", seed=7, head_dim=32)
    sampling = Sampling(max_new_tokens=6)
    before = await completions(loaded, jobs(loaded, 4), sampling)
    activate = await loaded.prepare(other, Weights(1, weights_digest(other)))
    assert_same(
        loaded, await completions(loaded, jobs(loaded, 4), sampling), before
    )  # preparing changes nothing active
    await activate()
    after = await completions(loaded, jobs(loaded, 4), sampling)
    assert after != before
    for job in jobs(loaded, 4):
        expected = recomputed_logprobs(other, list(job.prompt_token_ids), list(after[job.index].response_token_ids))
        assert after[job.index].logprobs == pytest.approx(expected, abs=1e-4)


async def test_weights_changed_in_flight_generate_the_rest_of_each_sample(
    loaded: Engine, folder: Path, tmp_path: Path
) -> None:
    if not loaded.updates_in_flight:
        pytest.skip("this engine lets samples finish first")
    other = make_tiny_model(tmp_path / "other", seed=7, head_dim=32)
    work, sampling = jobs(loaded, 4), Sampling(max_new_tokens=150, temperature=0.7)
    running = asyncio.create_task(completions(loaded, work, sampling))
    activate = await loaded.prepare(other, Weights(1, weights_digest(other)))
    await completions(
        loaded, jobs(loaded, 1), Sampling(max_new_tokens=3)
    )  # those asked for before it have some tokens too
    await activate()
    results = await running
    spans = [result.spans for result in results.values()]
    assert any(len(each) == 2 and each[1].start > 0 for each in spans), "no sample was being generated by then"
    folders = {0: folder, 1: other}
    for job in work:
        result = results[job.index]
        assert [span.weights.version for span in result.spans] in ([0], [0, 1], [1])
        assert result.spans[0].start == 0
        ends = [*(span.start for span in result.spans[1:]), len(result.response_token_ids)]
        for span, end in zip(result.spans, ends, strict=True):
            expected = recomputed_logprobs(
                folders[span.weights.version], list(job.prompt_token_ids), list(result.response_token_ids), 0.7
            )
            assert result.logprobs[span.start : end] == pytest.approx(expected[span.start : end], abs=1e-4)


async def test_the_resident_weights_are_those_published(loaded: Engine, tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "other", seed=7, head_dim=32)
    await activate(loaded, other)
    resident = await loaded.resident_weights()
    assert resident.digest in ("", weights_digest(other))
    expected = recomputed_logprobs(other, [PROBE_TOKENS[0]], list(PROBE_TOKENS[1:]))
    assert resident.probe_logprobs == pytest.approx(expected, abs=1e-4)


async def test_a_folder_that_is_no_model_is_refused_and_the_old_stays(loaded: Engine, tmp_path: Path) -> None:
    before = await completions(loaded, jobs(loaded, 2), Sampling(max_new_tokens=4))
    with pytest.raises(InvalidArgument) as refused:
        await loaded.prepare(tmp_path / "nowhere", Weights(1, "0" * 64))
    assert "nowhere" in str(refused.value)
    assert_same(loaded, await completions(loaded, jobs(loaded, 2), Sampling(max_new_tokens=4)), before)


async def test_an_engine_without_weights_says_so(engine: Engine) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        await completions(engine, [Job(0, (1, 2), 0)], Sampling(max_new_tokens=1))
    assert refused.value.reason == "NO_WEIGHTS"


async def test_broken_weights_are_failures_not_samples(loaded: Engine, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = make_tiny_model(tmp_path / "broken", head_dim=32)
    state = load_file(broken / "model.safetensors")
    state["model.norm.weight"][:] = float("nan")
    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    await activate(loaded, broken)
    async with aclosing(loaded.generate(jobs(loaded, 2), Sampling(max_new_tokens=3))) as stream:
        results = [result async for result in stream]
    assert [type(result) for result in results] == [Failed, Failed]
    assert {result.reason for result in results if isinstance(result, Failed)} == {"NON_FINITE_LOGITS"}


async def test_text_and_compute_facts_are_said(engine: Engine) -> None:
    assert engine.compute_dtype == "float32"
    assert engine.compute_threads == 1
    assert engine.max_concurrent_requests >= 1


async def test_decode_leaves_special_tokens_out(loaded: Engine) -> None:
    ids = loaded.render(user("hello"))
    assert "hello" in loaded.decode(ids)
    assert "<|im_start|>" not in loaded.decode(ids)
