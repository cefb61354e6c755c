"""Deadlines, retries and request ids: the same for every call of the SDK."""

from __future__ import annotations

import asyncio
import inspect
import time

import pytest
from tests.support.sdk import FAST, PATIENT, Engine, port_of, serve

import accord
from accord import errors
from accord._calls import Attempts
from accord.preference import v1 as preference_v1
from accord.resources import models, preferences, reward, rollout, runs, trainer
from accord.rollout import v1 as rollout_v1
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1

ADD = rollout_v1.add_RolloutServiceServicer_to_server
WEIGHTS = types_v1.WeightsRef(uri="file:///m", digest="d", version=3)
AREAS = [models.Models, preferences.Preferences, reward.Reward, rollout.Rollout, runs.Runs, trainer.Trainer]


class Flaky(Engine):
    """Refuses the first `refusals` calls as a draining service does."""

    def __init__(self, refusals: int) -> None:
        super().__init__()
        self.refusals = refusals
        self.request_ids: list[str] = []

    def _refuse(self, request_id: str = "") -> None:
        self.request_ids.append(request_id)
        if len(self.request_ids) <= self.refusals:
            raise errors.Unavailable("draining", reason="DRAINING")

    async def UpdateWeights(self, request, context):  # type: ignore[no-untyped-def]
        self._refuse(request.request_id)
        return await super().UpdateWeights(request, context)

    async def AcquireLease(self, request, context):  # type: ignore[no-untyped-def]
        self._refuse()
        return await super().AcquireLease(request, context)


async def test_unavailable_is_retried_with_the_same_request_id() -> None:
    engine = Flaky(3)
    async with serve(ADD, engine) as address, accord.Client(rollout=address, retry=FAST) as client:
        response = await client.rollout.update_weights(WEIGHTS)
        assert response.version == 3
        await client.rollout.update_weights(WEIGHTS)
        await client.rollout.update_weights(WEIGHTS, request_id="mine")
    first, *repeats, second, third = engine.request_ids
    assert repeats == [first] * 3
    assert first
    assert len({first, second, third}) == 3
    assert third == "mine"


async def test_retries_end_and_the_services_own_error_is_raised() -> None:
    engine = Flaky(100)
    async with serve(ADD, engine) as address, accord.Client(rollout=address, retry=FAST) as client:
        with pytest.raises(errors.Unavailable) as raised:
            await client.rollout.update_weights(WEIGHTS)
    assert raised.value.reason == "DRAINING"
    assert len(engine.request_ids) == FAST.attempts


async def test_a_new_lease_is_not_asked_for_twice_but_a_renewal_is() -> None:
    engine = Flaky(1)
    async with serve(ADD, engine) as address, accord.Client(rollout=address, retry=FAST) as client:
        with pytest.raises(errors.Unavailable):
            await client.rollout.acquire_lease("runs/a", ttl_seconds=30)
        assert len(engine.request_ids) == 1
        engine.refusals = 2
        lease = await client.rollout.acquire_lease("runs/a", ttl_seconds=30, token="secret")
    assert lease.holder == "runs/a"
    assert len(engine.request_ids) == 3


async def test_a_service_restarted_on_its_port_is_found_again() -> None:
    async with serve(ADD, Engine()) as address:
        client = accord.Client(rollout=address, retry=PATIENT)
        assert (await client.rollout.status()).ready
    call = asyncio.create_task(client.rollout.status(timeout=15))
    await asyncio.sleep(0.5)
    assert not call.done()
    async with serve(ADD, Engine(), port_of(address)):
        assert (await call).ready
    await client.close()


async def test_a_deadline_ends_a_call_that_hangs() -> None:
    class Hanging(Engine):
        async def GetStatus(self, request, context):  # type: ignore[no-untyped-def]
            await asyncio.sleep(60)

    async with serve(ADD, Hanging()) as address, accord.Client(rollout=address) as client:
        started = time.monotonic()
        with pytest.raises(errors.DeadlineExceeded):
            await client.rollout.status(timeout=0.3)
        assert time.monotonic() - started < 3


async def test_the_deadline_covers_the_retries_too() -> None:
    policy = accord.RetryPolicy(attempts=1000, first=0.05, longest=0.05)
    async with accord.Client(rollout="127.0.0.1:1", retry=policy) as client:
        started = time.monotonic()
        with pytest.raises((errors.Unavailable, errors.DeadlineExceeded)):
            await client.rollout.status(timeout=0.5)
        assert 0.2 < time.monotonic() - started < 3


async def test_pauses_grow_and_are_jittered_below_the_limit() -> None:
    policy = accord.RetryPolicy(first=0.2, longest=3)
    longest = [max(policy.pause(attempt) for _ in range(300)) for attempt in (0, 2, 20)]
    assert longest[0] <= 0.2 < longest[1] <= 0.8 < longest[2] <= 3
    assert len({policy.pause(3) for _ in range(10)}) > 1
    assert Attempts(policy, 5).left() == pytest.approx(5, abs=0.1)


@pytest.mark.parametrize("area", AREAS, ids=lambda area: area.__name__)
def test_every_method_has_a_deadline_and_a_docstring(area: type) -> None:
    methods = {name: m for name, m in vars(area).items() if name[0] != "_" and inspect.isfunction(m)}
    assert methods
    for name, method in methods.items():
        timeout = inspect.signature(method).parameters["timeout"]
        endless = name == "watch"  # ends with the run; each of its calls has a deadline
        assert timeout.default is None if endless else timeout.default > 0, name
        assert method.__doc__, name


async def test_a_large_batch_is_sent_in_chunks_and_named_once() -> None:
    class Counting(trainer_v1.TrainerServiceServicer):
        def __init__(self) -> None:
            self.messages: list[tuple[str, str, int]] = []

        async def PutExperience(self, requests, context):  # type: ignore[no-untyped-def]
            self.messages.clear()
            async for request in requests:
                assert request.ByteSize() < 5 * 2**20
                self.messages.append((request.training_id, request.lease_token, len(request.chunk.samples)))
            return trainer_v1.PutExperienceResponse(batch_id="b", records=sum(n for *_, n in self.messages))

    Counting.__abstractmethods__ = frozenset()
    counting = Counting()
    scored = trainer_v1.ScoredSample(
        sample=types_v1.Sample(request_id="r", response_token_ids=[1] * 500_000), score=1.0
    )
    async with (
        serve(trainer_v1.add_TrainerServiceServicer_to_server, counting) as address,
        accord.Client(trainer=address, retry=FAST) as client,
    ):
        response = await client.trainer.put_experience("t", samples=[scored] * 20, lease_token="key")
    assert response.records == 20
    assert len(counting.messages) > 1
    assert counting.messages[0][:2] == ("t", "key")
    assert {message[:2] for message in counting.messages[1:]} == {("", "")}


async def test_an_import_whose_records_fail_sends_nothing() -> None:
    class Recording(preference_v1.PreferenceServiceServicer):
        called = False

        async def ImportRecords(self, requests, context):  # type: ignore[no-untyped-def]
            self.called = True
            return preference_v1.ImportRecordsResponse()

    Recording.__abstractmethods__ = frozenset()
    recording = Recording()

    def records():  # type: ignore[no-untyped-def]
        yield preference_v1.ImportRecord(prompt=accord.conversation("q"))
        raise errors.InvalidArgument("pairs.jsonl:2: cut off")

    async with (
        serve(preference_v1.add_PreferenceServiceServicer_to_server, recording) as address,
        accord.Client(preference=address, retry=FAST) as client,
    ):
        with pytest.raises(errors.InvalidArgument, match=r"pairs\.jsonl:2"):
            await client.preferences.import_records(records())
        assert not recording.called
        await client.preferences.import_records([])
        assert recording.called
