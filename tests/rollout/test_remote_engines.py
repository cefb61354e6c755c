"""Engines for servers that run elsewhere: what is refused and why, and how a failing server ends a sample."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.engines import make_engine
from tests.support.inference_server import inference_server
from tests.support.tiny import make_tiny_model

from accord.digest import weights_digest
from accord.errors import AccordError, DeadlineExceeded, FailedPrecondition, InvalidArgument, Unavailable
from accord_rollout.engine import Completion, Engine, Failed, Job, ResidentWeights, Sampling, Weights

pytestmark = pytest.mark.process

ENGINES = ("openai", "sglang")
JOB = Job(0, (5, 6, 7), 2**63 + 5)


async def activate(engine: Engine, folder: Path, version: int = 1) -> ResidentWeights:
    await (await engine.prepare(folder, Weights(version, weights_digest(folder))))()
    return await engine.resident_weights()


async def sample(engine: Engine, sampling: Sampling | None = None) -> Completion | Failed:
    stream = engine.generate([JOB], sampling or Sampling(max_new_tokens=3))
    result = await anext(stream)
    await stream.aclose()
    return result


@asynccontextmanager
async def answering(text: bytes | None) -> AsyncIterator[str]:
    """A server that answers every request with the same bytes; None: never."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if text is None:
            await reader.read()  # until the caller has had enough
        else:
            writer.write(text)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def status(line: str, body: str = "") -> bytes:
    return f"HTTP/1.1 {line}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    ("lacks", "words"),
    [("token_ids", "does not return token ids"), ("logprobs", "does not return the logprob")],
)
async def test_a_server_without_what_training_needs_is_refused_with_what_it_lacks(
    tmp_path: Path, tiny_folder: Path, lacks: str, words: str
) -> None:
    with inference_server("openai", tiny_folder, lacks) as url:
        async with make_engine("openai", tmp_path, url=url) as engine:
            with pytest.raises(FailedPrecondition, match=words) as refused:
                await activate(engine, tiny_folder)
            assert refused.value.reason == "SERVER_UNFIT"


async def test_sglang_without_logprobs_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    with inference_server("sglang", tiny_folder, "logprobs") as url:
        async with make_engine("sglang", tmp_path, url=url) as engine:
            with pytest.raises(FailedPrecondition) as refused:
                await activate(engine, tiny_folder)
            assert refused.value.reason == "SERVER_UNFIT"


async def test_a_server_that_cannot_change_weights_serves_the_folder_it_was_started_on_and_no_other(
    tmp_path: Path, tiny_folder: Path
) -> None:
    other = make_tiny_model(tmp_path / "other", seed=3)
    with inference_server("openai", tiny_folder, "updates") as url:
        async with make_engine("openai", tmp_path, url=url) as engine:
            await activate(engine, tiny_folder)
            assert isinstance(await sample(engine), Completion)
            with pytest.raises(FailedPrecondition, match="VLLM_SERVER_DEV_MODE") as refused:
                await activate(engine, other)
            assert refused.value.reason == "SERVER_WEIGHTS_FIXED"
            assert isinstance(await sample(engine), Completion), "the refusal took the old weights away"


async def test_logprobs_before_temperature_are_refused_for_any_other_temperature(
    tmp_path: Path, tiny_folder: Path
) -> None:
    with inference_server("openai", tiny_folder, "processed_logprobs") as url:
        async with make_engine("openai", tmp_path, url=url) as engine:
            await activate(engine, tiny_folder)
            assert isinstance(await sample(engine), Completion)
            with pytest.raises(FailedPrecondition, match="processed_logprobs") as refused:
                await sample(engine, Sampling(max_new_tokens=3, temperature=0.7))
            assert refused.value.reason == "SERVER_LOGPROBS_RAW"


async def test_a_server_that_refuses_new_weights_fails_the_update(tmp_path: Path, tiny_folder: Path) -> None:
    with inference_server("sglang", tiny_folder, "updates") as url:
        async with make_engine("sglang", tmp_path, url=url) as engine:
            with pytest.raises(Unavailable, match="the weights do not fit"):
                await activate(engine, tiny_folder)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        (status("401 Unauthorized"), FailedPrecondition, "SERVER_DENIES"),
        (status("404 Not Found"), FailedPrecondition, "SERVER_LACKS"),
        (status("429 Too Many Requests"), AccordError, "SERVER_OVERLOADED"),
        (status("503 Service Unavailable"), Unavailable, "SERVER_FAILS"),
        (status("200 OK", "<html>"), AccordError, "SERVER_ANSWER"),
        (b"nonsense\r\n\r\n", Unavailable, "SERVER_UNREACHABLE"),
    ],
)
async def test_every_failing_answer_is_an_error_of_its_own(
    tmp_path: Path, tiny_folder: Path, name: str, answer: bytes, error: type[AccordError], reason: str
) -> None:
    async with answering(answer) as url, make_engine(name, tmp_path, url=url) as engine:
        with pytest.raises(error) as failed:
            await activate(engine, tiny_folder)
        assert failed.value.reason == reason


@pytest.mark.parametrize("name", ENGINES)
async def test_a_server_that_hangs_or_is_gone_ends_the_sample_at_its_deadline(
    tmp_path: Path, tiny_folder: Path, name: str
) -> None:
    with inference_server(name, tiny_folder) as url:
        async with make_engine(name, tmp_path, url=url, request_seconds=120) as engine:
            await activate(engine, tiny_folder)
    async with answering(None) as silent, make_engine(name, tmp_path / "2", url=silent, request_seconds=0.2) as engine:
        with pytest.raises((DeadlineExceeded, Unavailable)) as failed:
            await asyncio.wait_for(_one_call(engine), 60)
        assert failed.value.reason == "SERVER_TIMEOUT"
    async with make_engine(name, tmp_path / "3", url=url) as engine:
        with pytest.raises(Unavailable) as failed:
            await activate(engine, tiny_folder)
        assert failed.value.reason == "SERVER_UNREACHABLE"


async def _one_call(engine: Any) -> None:
    await engine.server.post("/anything", {}, engine.options.request_seconds)


async def test_a_server_that_dies_between_samples_gives_failures_that_may_be_retried(
    tmp_path: Path, tiny_folder: Path
) -> None:
    with inference_server("openai", tiny_folder) as url:
        async with make_engine("openai", tmp_path, url=url) as engine:
            await activate(engine, tiny_folder)
            assert isinstance(await sample(engine), Completion)
            engine.server._client = type(engine.server._client)(base_url="http://127.0.0.1:1")  # type: ignore[attr-defined]
            lost = await sample(engine)
            assert isinstance(lost, Failed)
            assert (lost.reason, lost.retryable) == ("SERVER_UNREACHABLE", True)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"url": "localhost:8000"}, "http://"), ({"url": "http://x", "speed": 1}, "engine_options.speed")],
)
async def test_wrong_options_are_named(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words) as refused:
        async with make_engine("openai", tmp_path, **options):
            pass
    assert refused.value.reason == "BAD_ENGINE_OPTIONS"
