"""The context of a stage: the run, its clients, its ledger, and the facts that earlier stages recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import accord
from accord.controller import v1 as controller_v1
from accord.preference import v1 as preference_v1
from accord.reward import v1 as reward_v1
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_controller.clients.replica_set import ReplicaSet
from accord_controller.clients.service_clients import Leased, Services
from accord_controller.clients.usage_meter import UsageMeter
from accord_controller.ledger import keys
from accord_controller.ledger.ledger import Ledger
from accord_controller.ledger.recorder import RunRecorder
from accord_controller.stages.seeds import seed_for
from accord_controller.store.store import Store


@dataclass(frozen=True)
class StageContext:
    """One run, as a stage sees it."""

    recorder: RunRecorder
    services: Services
    store: Store
    state_dir: Path
    # Raises Stopped when the run should stop. Stages call it at every point where stopping loses no work.
    check: Callable[[], None]
    # Measures the stage's resource usage.
    meter: UsageMeter

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.recorder.run_id

    @property
    def spec(self) -> controller_v1.RunSpec:
        """The resolved spec."""
        return self.recorder.spec

    @property
    def ledger(self) -> Ledger:
        """The run's ledger."""
        return self.recorder.ledger

    @property
    def status(self) -> controller_v1.RunStatus:
        """The run's status."""
        return self.recorder.status

    @property
    def rollout(self) -> ReplicaSet:
        """The run's rollout services, driven as one."""
        return self.services.rollouts

    @property
    def client(self) -> accord.Client:
        """The other services."""
        return self.services.client

    def seed(self, *parts: object) -> int:
        """The run's seed for one purpose."""
        return seed_for(self.spec.seed, *parts)

    @asynccontextmanager
    async def leased(self, *services: Leased) -> AsyncIterator[None]:
        """Exclusive use of services for a block."""

        async def waiting(message: str) -> None:
            if message:
                await self.recorder.emit("waiting", message)
            self.check()

        async with self.services.leased(*services, waiting=waiting):
            yield

    def base(self) -> types_v1.WeightsRef:
        """The run's base model."""
        return self.ledger.need(keys.BASE, types_v1.WeightsRef)

    def reward_base(self) -> types_v1.WeightsRef:
        """The model that reward models are trained from."""
        return self.ledger.need(keys.REWARD_BASE, types_v1.WeightsRef)

    def compute_dtype(self) -> str:
        """The fastest number type, which the trainer measured when the run began. It is recorded so that all trainings
        use it."""
        return self.ledger.need(keys.TRAINER, trainer_v1.Training).compute_dtype

    def promoted(self) -> types_v1.WeightsRef:
        """The active policy as version 0 of the training that starts from it."""
        ref = types_v1.WeightsRef()
        ref.CopyFrom(self.status.promoted)
        ref.version = 0
        ref.ClearField("base_version")
        return ref

    def promoted_iteration(self) -> int:
        """The iteration that produced the active policy."""
        return max(result.iteration for result in self.status.iterations if result.promoted)

    def iteration_so_far(self, iteration: int) -> controller_v1.IterationResult:
        """The parts that the finished stages of an iteration recorded, merged."""
        return keys.iteration_so_far(self.ledger, iteration)

    def reward_model(self, iteration: int) -> types_v1.WeightsRef:
        """The reward model of an iteration."""
        name = keys.result_key(iteration, controller_v1.STAGE_REWARD_MODEL)
        return self.ledger.need(name, controller_v1.IterationResult).reward_model

    def reward_scorer(self, iteration: int) -> reward_v1.ScorerSpec:
        """The iteration's reward model as a scorer, normalised to mean 0, variance 1 on answers of the base policy."""
        return self.ledger.need(keys.scorer_key(iteration), reward_v1.ScorerSpec)

    def evaluation_scorers(self, iteration: int) -> list[reward_v1.ScorerSpec]:
        """The scorers of held-out answers: the spec's, or else the iteration's reward model."""
        return list(self.spec.evaluate.scorers) or [self.reward_scorer(iteration)]

    async def prompts(self) -> dict[str, preference_v1.Prompt]:
        """The run's pinned prompts, by id."""
        found = await self.ledger.read(keys.PROMPTS, preference_v1.Prompt)
        return {prompt.prompt_id: prompt for prompt in found or ()}

    async def prompts_of(self, split: preference_v1.Split.ValueType) -> list[preference_v1.Prompt]:
        """The run's prompts on one side of the split."""
        return [prompt for prompt in (await self.prompts()).values() if prompt.split == split]
