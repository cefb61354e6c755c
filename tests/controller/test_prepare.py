"""A run's algorithms are tried before it starts: one that cannot learn in its stage is refused at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.stage import stage_context
from tests.support.trainer import weights_ref

from accord.errors import InvalidArgument
from accord_controller.ledger import keys
from accord_controller.stages.prepare import _try_trainings


@pytest.mark.parametrize(
    ("stage", "algorithm"), [("policy", "ilql"), ("policy", "dpo"), ("policy", "sft"), ("reward_model", "ppo")]
)
async def test_an_algorithm_that_learns_from_something_else_is_refused(
    tiny_folder: Path, tmp_path: Path, stage: str, algorithm: str
) -> None:
    async with stage_context(tmp_path) as (context, client):
        base = weights_ref(tiny_folder)
        names = (keys.BASE, keys.REWARD_BASE)
        await context.recorder.record_entries([context.ledger.message_entry(name, base) for name in names])
        async with context.leased("trainer"):
            getattr(context.spec, stage).algorithm = algorithm
            with pytest.raises(InvalidArgument, match=f"{algorithm} cannot be the {stage} algorithm") as refused:
                await _try_trainings(context)
            assert refused.value.violations[0].field == f"run.spec.{stage}.algorithm"
            assert [one async for one in client.trainer.trainings()] == []
            getattr(context.spec, stage).algorithm = {"policy": "ppo", "reward_model": "reward_model"}[stage]
            await _try_trainings(context)
        assert keys.TRAINER in context.ledger
