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
    """Lets everything go on that can."""
    for _ in range(20):
        await asyncio.sleep(0)


class TrainingLoader:
    """An engine that serves a version, draws what it is asked for when it is let, and writes down what was asked."""

    def __init__(self, max_staleness: int, steps: range = range(1, 7), version: int = 0) -> None:
        self.version = version
        # (step, least version, version in force as it was begun)
        self.begun: list[tuple[int, int, int]] = []
        self.put: list[int] = []
        self.draw: Callable[[int], Awaitable[None]] = self._at_once
        self.fetch: Callable[[int], Awaitable[None]] = self._at_once
        self.overlap = Overlap(max_staleness, steps, weights(version), self._make, self._put)

    async def _at_once(self, _: int) -> None:
        return

    async def _make(self, step: int, least: int) -> Batch:
        self.begun.append((step, least, self.version))
        await self.draw(step)
        return Batch(metrics={"step": step, "drawn_by": self.version})

    async def _put(self, ref: types_v1.WeightsRef) -> None:
        await self.fetch(ref.version)
        self.version = ref.version
        self.put.append(ref.version)


@pytest.mark.parametrize("staleness", [1, 2, 4])
async def test_experience_is_begun_as_soon_as_a_version_may_draw_it_and_no_sooner(staleness: int) -> None:
    bench = TrainingLoader(staleness)
    async with bench.overlap.open():
        for step in range(1, 7):
            await turn()
            begun = min(6, step + staleness)
            assert [one for one, _, _ in bench.begun] == list(range(1, begun + 1))
            assert (await bench.overlap.batch(step)).metrics["step"] == step
            await bench.overlap.after(weights(step))
    for step, least, by in bench.begun:
        assert least == max(0, step - 1 - staleness) <= by <= step - 1
    assert any(by < step - 1 for step, _, by in bench.begun)
    assert bench.version == 6


async def test_a_step_does_not_wait_for_the_weights_of_the_one_before() -> None:
    """Versions that came while others were being fetched are passed by, except the newest."""
    bench, go = TrainingLoader(3), asyncio.Event()

    async def slow(_: int) -> None:
        await go.wait()

    bench.fetch = slow
    async with bench.overlap.open():
        for step in (1, 2, 3, 4):
            async with asyncio.timeout(5):
                await bench.overlap.batch(step)
                await bench.overlap.after(weights(step))
                await turn()
        assert bench.version == 0
        assert {ref.version for ref in bench.overlap.in_use()} == {1, 4}, "what is fetched must not be freed"
        waiting = asyncio.create_task(bench.overlap.batch(5))
        await turn()
        assert not waiting.done(), "step 5 may not be drawn by version 0"
        go.set()
        assert (await waiting).metrics["drawn_by"] >= 1
        await bench.overlap.after(weights(5))
        await bench.overlap.batch(6)
        await bench.overlap.after(weights(6))
    assert bench.put[0] == 1
    assert bench.put[-1] == 6
    assert 2 not in bench.put
    assert 3 not in bench.put


async def test_after_an_interruption_it_goes_on_where_the_ledger_ends() -> None:
    """Also where the trainer has made a version whose answer was lost: its step is still to be recorded."""
    for version in (3, 4):
        bench = TrainingLoader(1, range(4, 7), version)
        async with bench.overlap.open():
            await turn()
            assert [one for one, _, _ in bench.begun] == list(range(4, min(6, version + 2) + 1))
            for step in (4, 5, 6):
                await bench.overlap.batch(step)
                await bench.overlap.after(weights(step))
        assert [one for one, _, _ in bench.begun] == [4, 5, 6]


async def test_what_cannot_be_drawn_or_put_in_force_ends_the_stage_and_everything_that_is_under_way() -> None:
    gone = Unavailable("gone")

    async def fail(_: int) -> None:
        raise gone

    async def never(step: int) -> None:
        if step > 1:
            await asyncio.Event().wait()

    async def steps(bench: TrainingLoader) -> None:
        async with bench.overlap.open():
            await bench.overlap.batch(1)
            await bench.overlap.after(weights(1))
            await turn()
            await bench.overlap.after(weights(2))

    for draw, fetch in ((fail, never), (never, fail)):
        bench = TrainingLoader(2)
        bench.draw, bench.fetch = draw, fetch
        with pytest.raises(Unavailable):
            await steps(bench)
    await turn()
    assert not [task for task in asyncio.all_tasks() if "_make" in repr(task.get_coro())]


async def test_the_time_that_the_trainer_waited_is_told() -> None:
    bench = TrainingLoader(1)

    async def slow(_: int) -> None:
        await asyncio.sleep(0.05)

    bench.draw = slow
    async with bench.overlap.open():
        assert (await bench.overlap.batch(1)).metrics["wait_seconds"] > 0.04
        await asyncio.sleep(0.1)
        assert (await bench.overlap.batch(2)).metrics["wait_seconds"] < 0.04
        for step in (1, 2):
            await bench.overlap.after(weights(step))
