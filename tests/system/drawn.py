"""What a run's ledger says was drawn for its policy: complete, each sample once, with the version that was due."""

from __future__ import annotations

from pathlib import Path

from tests.support.controller import database

from accord.controller import v1 as controller_v1
from accord.trainer import v1 as trainer_v1
from accord_controller.ledger import Ledger
from accord_controller.store.store import Store
from accord_runtime.database import open_database


async def assert_whole(state_dir: Path, run: controller_v1.Run, steps: int = 0) -> None:
    """Every step of every iteration, or at least `steps` of a run that was stopped, has prompts x samples, keyed by
    (request_id, index), none missing and none twice, all of the version before the step."""
    spec = run.status.resolved_spec.policy
    store = Store(open_database(database(state_dir)))
    try:
        ledger = await Ledger.load(store, run.run_id, state_dir)
    finally:
        await store.close()
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
