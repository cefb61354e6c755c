"""The blocking client: from plain threads, several at once, and where an event loop runs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import pytest
from tests.support.sdk import SAMPLING, Engine, sample, serve_in_thread

import accord
from accord import errors, sync
from accord.client import Client
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1

pytestmark = pytest.mark.process

ADD = rollout_v1.add_RolloutServiceServicer_to_server


class Slow(Engine):
    """The second sample never comes."""

    def __init__(self) -> None:
        super().__init__()
        self.left = threading.Event()

    async def answer(self, request, call):  # type: ignore[no-untyped-def]
        try:
            yield sample(request, 0)
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.left.set()
            raise


@pytest.fixture
def address() -> Iterator[str]:
    with serve_in_thread(ADD, Engine()) as address:
        yield address


def test_calls_and_streams_from_a_plain_thread(address: str) -> None:
    with accord.SyncClient(rollout=address) as client:
        assert client.addresses == {"rollout": address}
        assert client.rollout.status().engine == "echo"
        stream = client.rollout.generate(["a", "b"], sampling=SAMPLING, n=2)
        assert isinstance(stream, Iterator)
        assert [response.sample.text for response in stream] == [f"answer {index}" for index in range(4)]


async def test_works_where_an_event_loop_runs_as_in_jupyter(address: str) -> None:
    assert asyncio.get_running_loop().is_running()
    with accord.SyncClient(rollout=address) as client:
        assert client.rollout.status().ready
        assert len(list(client.rollout.generate(["a"], sampling=SAMPLING))) == 1


def test_several_threads_share_one_client(address: str) -> None:
    with accord.SyncClient(rollout=address) as client, ThreadPoolExecutor(8) as pool:
        counts = pool.map(lambda n: len(list(client.rollout.generate(["a"] * n, sampling=SAMPLING))), range(1, 17))
        assert list(counts) == list(range(1, 17))


def test_errors_are_raised_in_the_calling_thread(address: str) -> None:
    with accord.SyncClient(rollout=address) as client:
        with pytest.raises(errors.InvalidArgument) as raised:
            client.rollout.update_weights(types_v1.WeightsRef())
        assert {violation.field for violation in raised.value.violations} == {"weights.uri", "weights.digest"}
        with pytest.raises(errors.FailedPrecondition, match="no address of the trainer"):
            client.trainer.status()
        with pytest.raises(AttributeError, match="rollouts"):
            client.rollouts  # type: ignore[attr-defined]  # noqa: B018


def test_leaving_a_stream_early_cancels_the_call() -> None:
    engine = Slow()
    with serve_in_thread(ADD, engine) as address, accord.SyncClient(rollout=address) as client:
        for response in client.rollout.generate(["a", "b"], sampling=SAMPLING):
            assert response.sample.index == 0
            break
        assert engine.left.wait(5)


def test_a_closed_client_says_so_and_closes_twice(address: str) -> None:
    client = accord.SyncClient(rollout=address)
    area = client.rollout
    assert area.status().ready
    client.close()
    client.close()
    with pytest.raises(errors.FailedPrecondition, match="closed"):
        area.status()


def test_a_script_that_forgets_to_close_ends(address: str) -> None:
    script = f"import accord; client = accord.SyncClient(rollout={address!r}); print(client.rollout.status().engine)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, "echo\n"), done.stderr


def test_the_blocking_client_has_every_area_of_the_async_one() -> None:
    areas = [name for name, member in vars(Client).items() if isinstance(member, cached_property)]
    assert list(sync.AREAS) == areas
