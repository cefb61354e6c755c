"""Where models come from and what learnt from which data, read from what runs recorded: pure functions over steps.

A step is one iteration of a run: its policy started from another policy, learnt from a reward model, and that from a
snapshot of preferences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from accord.controller import v1 as controller_v1
from accord.errors import InvalidArgument, NotFound
from accord.types import v1 as types_v1

LEAST_DIGEST = 8


@dataclass(frozen=True)
class Lineage:
    """Every step of every run, oldest first, and every model of the registry by name."""

    steps: Sequence[controller_v1.LineageStep]
    models: Mapping[str, controller_v1.Model]

    def of_model(self, name: str) -> controller_v1.GetModelLineageResponse:
        """What made a registered model. NotFound, MODEL_NOT_FOUND."""
        model = self.models.get(name)
        if model is None:
            raise NotFound(
                f"there is no model {name}; `accord models list` shows what there is", reason="MODEL_NOT_FOUND"
            )
        step = self._made(model.run_id, model.iteration)
        return self._back(step) if step is not None else self._from(model.weights)

    def of_digest(self, digest: str) -> controller_v1.GetModelLineageResponse:
        """What made the policy or reward model whose digest starts so. NotFound; InvalidArgument where several do."""
        if len(digest) < LEAST_DIGEST:
            raise InvalidArgument.at("weights_digest", f"needs at least {LEAST_DIGEST} characters of the digest")
        found: dict[str, tuple[controller_v1.LineageStep | None, types_v1.WeightsRef]] = {
            ref.digest: (step, ref)
            # Reversed: of steps with one reward model the first counts, which trained it.
            for step in reversed(self.steps)
            for ref in (step.started_from, step.reward_model, step.policy)
            if ref.digest.startswith(digest)
        }
        found |= {
            model.weights.digest: (None, model.weights)
            for model in self.models.values()
            if model.weights.digest.startswith(digest) and model.weights.digest not in found
        }
        if not found:
            raise NotFound(
                f"no run made weights with digest {digest}, and no model of the registry has it",
                reason="WEIGHTS_NOT_FOUND",
            )
        if len(found) > 1:
            raise InvalidArgument.at("weights_digest", f"is the start of {len(found)} digests; give more of it")
        (step, ref) = next(iter(found.values()))
        made = step is not None and ref.digest in (step.policy.digest, step.reward_model.digest)
        return self._back(step) if step is not None and made else self._from(ref)

    def trained_on(self, snapshots: Iterable[str]) -> list[controller_v1.TrainedModel]:
        """The steps that learnt from a snapshot, themselves or through a policy that they started from."""
        wanted = set(snapshots)
        found: list[controller_v1.TrainedModel] = []
        tainted: set[str] = set()
        for step in self.steps:
            direct = sorted(wanted & {step.prompt_snapshot, step.preference_snapshot})
            if direct or step.started_from.digest in tainted:
                found.append(controller_v1.TrainedModel(step=step, snapshots=direct))
                if step.policy.digest:
                    tainted.add(step.policy.digest)
        return found

    def _back(self, step: controller_v1.LineageStep) -> controller_v1.GetModelLineageResponse:
        """The step, what made that which it started from, and so on."""
        steps = [step]
        while True:
            earlier = self._maker(steps[-1])
            if earlier is None or any(earlier is seen for seen in steps):
                return controller_v1.GetModelLineageResponse(steps=steps, base=steps[-1].started_from)
            steps.append(earlier)

    def _from(self, ref: types_v1.WeightsRef) -> controller_v1.GetModelLineageResponse:
        """The lineage of weights that no step of their own run made: another run may have."""
        made = next((step for step in self.steps if step.policy.digest == ref.digest), None)
        return self._back(made) if made is not None else controller_v1.GetModelLineageResponse(base=ref)

    def _maker(self, step: controller_v1.LineageStep) -> controller_v1.LineageStep | None:
        """The step that made what this one started from: of its own run where possible."""
        made = [other for other in self.steps if other.policy.digest == step.started_from.digest and other is not step]
        own = [other for other in made if other.run_id == step.run_id and other.iteration < step.iteration]
        return own[-1] if own else made[0] if made else None

    def _made(self, run_id: str, iteration: int) -> controller_v1.LineageStep | None:
        return next((step for step in self.steps if (step.run_id, step.iteration) == (run_id, iteration)), None)


def lineage_of(
    runs: Iterable[tuple[str, Sequence[controller_v1.IterationResult]]], models: Iterable[controller_v1.Model]
) -> Lineage:
    """Lineage from the results of every run's iterations, oldest run first. Results that ended before a run recorded
    what it started from are completed: each iteration starts from the last one promoted before it."""
    by_name = {model.name: model for model in models}
    # By digest, the first that had it: the same weights may be the base of several runs.
    names: dict[str, str] = {}
    for model in sorted(by_name.values(), key=lambda model: model.create_time.ToNanoseconds()):
        names.setdefault(model.weights.digest, model.name)
    steps = []
    for run_id, results in runs:
        in_force = types_v1.WeightsRef()
        for result in results:
            if result.iteration:
                started = result.started_from if result.HasField("started_from") else in_force
                own = f"{run_id}-{result.iteration}"
                steps.append(
                    controller_v1.LineageStep(
                        run_id=run_id,
                        iteration=result.iteration,
                        model=own if own in by_name else "",
                        policy=result.policy if result.HasField("policy") else None,
                        started_from=started,
                        started_from_model=names.get(started.digest, ""),
                        reward_model=result.reward_model if result.HasField("reward_model") else None,
                        prompt_snapshot=result.prompt_snapshot,
                        preference_snapshot=result.preference_snapshot,
                        promoted=result.promoted,
                    )
                )
            if result.promoted:
                in_force = result.policy
    return Lineage(steps, by_name)
