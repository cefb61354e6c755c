"""Generation beside training: what may be begun when, what waits for what, and what an error does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from accord.errors import Unavailable
from accord.types import v1 as types_v1
from accord_controller.stages.overlap import Overlap
from accord_controller.stages.steps import Batch


def weights(version: int) -> types_v1.WeightsRef:
    return types_v1.WeightsRef(version=version, digest=f"d{version}")


async def turn() -> None:
    """Lets everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Harness:
    """An engine that serves a version, generates when the test lets it, and notes the requests."""

    def __init__(self, max_staleness: int, steps: range = range(1, 7), version: int = 0) -> None:
        self.version = version
        # (step, least version, version that was active when it began)
        self.begun: list[tuple[int, int, int]] = []
        self.put: list[int] = []
        self.generate: Callable[[int], Awaitable[None]] = self._at_once
        self.fetch: Callable[[int], Awaitable[None]] = self._at_once
        self.overlap = Overlap(max_staleness, steps, weights(version), self._make, self._put)

    async def _at_once(self, _: int) -> None:
        return

    async def _make(self, step: int, least: int) -> Batch:
        self.begun.append((step, least, self.version))
        await self.generate(step)
        return Batch(metrics={"step": step, "made_by": self.version})

    async def _put(self, ref: types_v1.WeightsRef) -> None:
        await self.fetch(ref.version)
        self.version = ref.version
        self.put.append(ref.version)


@pytest.mark.parametrize("staleness", [1, 2, 4])
async def test_experience_is_begun_as_soon_as_a_version_may_make_it_and_no_sooner(staleness: int) -> None:
    harness = Harness(staleness)
    async with harness.overlap.open():
        for step in range(1, 7):
            await turn()
            begun = min(6, step + staleness)
            assert [one for one, _, _ in harness.begun] == list(range(1, begun + 1))
            assert (await harness.overlap.batch(step)).metrics["step"] == step
            await harness.overlap.after(weights(step))
    for step, least, by in harness.begun:
        assert least == max(0, step - 1 - staleness) <= by <= step - 1
    assert any(by < step - 1 for step, _, by in harness.begun)
    assert harness.version == 6


async def test_a_step_does_not_wait_for_the_weights_of_the_one_before() -> None:
    """Versions that came while others were being fetched are passed by, except the newest."""
    harness, go = Harness(3), asyncio.Event()

    async def slow(_: int) -> None:
        await go.wait()

    harness.fetch = slow
    async with harness.overlap.open():
        for step in (1, 2, 3, 4):
            async with asyncio.timeout(5):
                await harness.overlap.batch(step)
                await harness.overlap.after(weights(step))
                await turn()
        assert harness.version == 0
        assert {ref.version for ref in harness.overlap.in_use()} == {1, 4}, "what is fetched must not be freed"
        waiting = asyncio.create_task(harness.overlap.batch(5))
        await turn()
        assert not waiting.done(), "version 0 may not make step 5"
        go.set()
        assert (await waiting).metrics["made_by"] >= 1
        await harness.overlap.after(weights(5))
        await harness.overlap.batch(6)
        await harness.overlap.after(weights(6))
    assert harness.put[0] == 1
    assert harness.put[-1] == 6
    assert 2 not in harness.put
    assert 3 not in harness.put


async def test_after_an_interruption_it_continues_where_the_ledger_ends() -> None:
    """Also where the trainer has made a version whose answer was lost: its step is still to be recorded."""
    for version in (3, 4):
        harness = Harness(1, range(4, 7), version)
        async with harness.overlap.open():
            await turn()
            assert [one for one, _, _ in harness.begun] == list(range(4, min(6, version + 2) + 1))
            for step in (4, 5, 6):
                await harness.overlap.batch(step)
                await harness.overlap.after(weights(step))
        assert [one for one, _, _ in harness.begun] == [4, 5, 6]


async def test_an_error_of_generation_or_activation_ends_the_stage_and_everything_in_progress() -> None:
    gone = Unavailable("gone")

    async def fail(_: int) -> None:
        raise gone

    async def never(step: int) -> None:
        if step > 1:
            await asyncio.Event().wait()

    async def steps(harness: Harness) -> None:
        async with harness.overlap.open():
            await harness.overlap.batch(1)
            await harness.overlap.after(weights(1))
            await turn()
            await harness.overlap.after(weights(2))

    for generate, fetch in ((fail, never), (never, fail)):
        harness = Harness(2)
        harness.generate, harness.fetch = generate, fetch
        with pytest.raises(Unavailable):
            await steps(harness)
    await turn()
    assert not [task for task in asyncio.all_tasks() if "_make" in repr(task.get_coro())]


async def test_the_time_that_the_trainer_waited_is_reported() -> None:
    harness = Harness(1)

    async def slow(_: int) -> None:
        await asyncio.sleep(0.05)

    harness.generate = slow
    async with harness.overlap.open():
        assert (await harness.overlap.batch(1)).metrics["wait_seconds"] > 0.04
        await asyncio.sleep(0.1)
        assert (await harness.overlap.batch(2)).metrics["wait_seconds"] < 0.04
        for step in (1, 2):
            await harness.overlap.after(weights(step))
