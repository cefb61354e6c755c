"""What a service tells Prometheus: its calls with their outcome, its own figures, and only when asked to."""

from __future__ import annotations

import asyncio
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.rollout import generate, generate_request, pending, rollout_settings, until_pending, weights_ref

import accord
from accord import errors
from accord.channel import open_channel
from accord.rollout import v1 as rollout_v1
from accord_preference.service import build as build_preference
from accord_preference.settings import PreferenceSettings
from accord_rollout.service import build as build_rollout
from accord_runtime.serving.server import RunningServer, start

PREFERENCE = "accord.preference.v1.PreferenceService"


async def scrape(server: RunningServer) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every figure by name and labels."""

    def get() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    families = text_string_to_metric_families(await asyncio.to_thread(get))
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def labels(**values: str) -> frozenset[tuple[str, str]]:
    return frozenset(values.items())


async def test_calls_are_counted_by_method_and_outcome(tmp_path: Path) -> None:
    settings = PreferenceSettings(state_dir=tmp_path, metrics_port=0)
    server = await start(await build_preference(settings), settings)
    try:
        async with accord.Client(preference=server.address) as client:
            for _ in range(3):
                await client.preferences.stats()
            with pytest.raises(errors.InvalidArgument):
                await client.preferences.create_prompts([])
            assert [one async for one in client.preferences.export_records(2)] == []
        found = await scrape(server)
    finally:
        await server.stop(0)
    for method, code, times in (
        ("GetStats", "OK", 3),
        ("CreatePrompts", "INVALID_ARGUMENT", 1),
        ("ExportRecords", "OK", 1),
    ):
        assert found["accord_call_seconds_count", labels(method=f"{PREFERENCE}/{method}", code=code)] == times
    assert found["accord_calls_in_work", labels(method=f"{PREFERENCE}/GetStats")] == 0
    assert found["process_resident_memory_bytes", labels()] > 1e6
    with pytest.raises(OSError, match="refused"):
        await scrape(server)


async def test_the_backlog_of_a_rollout_service_is_what_waits_and_is_in_work(tmp_path: Path, tiny_folder: Path) -> None:
    settings = rollout_settings(tmp_path, metrics_port=0, model=tiny_folder, max_batch_size=1)
    server = await start(await build_rollout(settings), settings)
    try:
        async with open_channel(server.address) as channel:
            stub = rollout_v1.RolloutServiceStub(channel)
            request = generate_request(["one", "two"], n=40)
            request.sampling.max_new_tokens = 64
            asking = asyncio.create_task(generate(stub, request))
            await until_some_pending(stub)
            before = await scrape(server)
            assert before["accord_rollout_pending_samples", labels()] > 0
            assert before["accord_calls_in_work", labels(method="accord.rollout.v1.RolloutService/Generate")] == 1
            asking.cancel()
            await until_pending(stub, 0)
            await stub.UpdateWeights(
                rollout_v1.UpdateWeightsRequest(request_id="u", weights=weights_ref(tiny_folder, version=7)), timeout=60
            )
            after = await scrape(server)
        assert after["accord_rollout_pending_samples", labels()] == 0
        assert after["accord_rollout_weights_version", labels()] == 7
        assert after["accord_rollout_ready", labels()] == 1
    finally:
        await server.stop(0)


async def until_some_pending(stub: rollout_v1.RolloutServiceStub) -> None:
    """Waits, at most 20 seconds, until something waits or is in work."""
    async with asyncio.timeout(20):
        while not await pending(stub):  # noqa: ASYNC110  the service is another program: asking is all one can
            await asyncio.sleep(0.01)


async def test_nothing_is_served_to_prometheus_unless_told(tmp_path: Path) -> None:
    settings = PreferenceSettings(state_dir=tmp_path)
    server = await start(await build_preference(settings), settings)
    try:
        assert (server.metrics_port, server.health_port) == (0, 0)
    finally:
        await server.stop(0)


async def test_a_metrics_port_in_use_is_said(tmp_path: Path) -> None:
    settings = PreferenceSettings(state_dir=tmp_path / "a", metrics_port=0)
    server = await start(await build_preference(settings), settings)
    try:
        second = PreferenceSettings(state_dir=tmp_path / "b", metrics_port=server.metrics_port)
        with pytest.raises(errors.Unavailable, match="--metrics-port") as raised:
            await start(await build_preference(second), second)
        assert raised.value.reason == "PORT_IN_USE"
    finally:
        await server.stop(0)
