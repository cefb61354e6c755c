"""What a run's ledger says was drawn for its policy: complete, each sample once, with the version that was due."""

from __future__ import annotations

from pathlib import Path

from tests.support.controller import database

from accord.controller import v1 as controller_v1
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_controller.ledger.ledger import Ledger
from accord_controller.store.store import Store
from accord_runtime.database.transactions import open_database


async def assert_whole(state_dir: Path, run: controller_v1.Run, steps: int = 0) -> None:
    """Every step of every iteration, or at least `steps` of a run that was stopped, has prompts x samples, keyed by
    (request_id, index), none missing and none twice, all of the version before the step."""
    spec = run.status.resolved_spec.policy
    ledger = await _ledger(state_dir, run)
    names = [name for name in ledger.names() if "/policy/" in name and name.endswith("/experience")]
    assert len(names) >= steps if steps else len(names) == run.status.resolved_spec.iterations * spec.steps
    requests = set()
    for name in names:
        samples = [each.sample for each in await ledger.read(name, trainer_v1.ScoredSample) or []]
        step = int(name.split("/")[2])
        wanted = range(spec.prompts_per_step * spec.samples_per_prompt)
        assert sorted(sample.index for sample in samples) == list(wanted), name
        assert len({sample.request_id for sample in samples}) == 1, name
        requests.add(samples[0].request_id)
        for sample in samples:
            assert sample.engine, "every engine of ours says what it is"
            assert [segment.version for segment in sample.segments] == [step - 1], name
    assert len(requests) == len(names)


async def assert_none_too_stale(state_dir: Path, run: controller_v1.Run) -> list[int]:
    """Of the one iteration of a run with `max_staleness`: no sample is lost, none is there twice, each is no staler
    than it may be and drawn by weights that the run made. How stale the oldest token of each step was."""
    oldest = []
    for step, batch in enumerate(await drawn_by_step(state_dir, run), start=1):
        versions = {segment.version for sample in batch for segment in sample.segments}
        least = max(0, step - 1 - run.status.resolved_spec.policy.max_staleness)
        assert least <= min(versions) <= max(versions) <= step - 1, step
        oldest.append(step - 1 - min(versions))
    return oldest


async def drawn_by_step(state_dir: Path, run: controller_v1.Run) -> list[list[types_v1.Sample]]:
    """The samples of each step of the one iteration of a run, each once and by weights that the run made."""
    spec, ledger = run.status.resolved_spec.policy, await _ledger(state_dir, run)
    steps = range(1, spec.steps + 1)
    assert f"1/policy/{spec.steps + 1:05d}/experience" not in ledger
    made_by = {0: run.status.iterations[0].policy.digest}
    made_by |= {step: ledger.need(f"1/policy/{step:05d}/step", trainer_v1.StepResult).digest for step in steps}
    batches = []
    for step in steps:
        batch = await ledger.read(f"1/policy/{step:05d}/experience", trainer_v1.ScoredSample)
        assert batch is not None, step
        batches.append([one.sample for one in batch])
    samples = [sample for batch in batches for sample in batch]
    size = spec.prompts_per_step * spec.samples_per_prompt
    assert len({(sample.request_id, sample.index) for sample in samples}) == len(samples) == spec.steps * size
    for sample in samples:
        assert all(segment.digest == made_by[segment.version] for segment in sample.segments)
    return batches


async def _ledger(state_dir: Path, run: controller_v1.Run) -> Ledger:
    store = Store(open_database(database(state_dir)))
    try:
        return await Ledger.load(store, run.run_id, state_dir)
    finally:
        await store.close()
