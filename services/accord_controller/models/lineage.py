"""The lineage of models: their origins and the data that they learnt from, read from the records of runs. Pure
functions over steps.

A step is one iteration of a run. Its policy started from another policy and learnt from a reward model. The reward
model learnt from a snapshot of preferences, starting from other weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from accord.controller import v1 as controller_v1
from accord.errors import InvalidArgument, NotFound
from accord.types import v1 as types_v1
from accord_controller.spec import files


@dataclass(frozen=True)
class Lineage:
    """Every step of every run, oldest first, and every registered model by name."""

    steps: Sequence[controller_v1.LineageStep]
    models: Mapping[str, controller_v1.Model]

    def of_model(self, name: str) -> controller_v1.GetModelLineageResponse:
        """The steps that produced a registered model. NotFound, MODEL_NOT_FOUND."""
        model = self.models.get(name)
        if model is None:
            raise no_model(name)
        step = self._made(model.run_id, model.iteration)
        return self._back(step) if step is not None else self._from(model.weights)

    def of_digest(self, digest: str) -> controller_v1.GetModelLineageResponse:
        """The steps that produced the policy or reward model whose digest has this prefix. NotFound; InvalidArgument if
        several digests have it."""
        found: dict[str, tuple[controller_v1.LineageStep | None, types_v1.WeightsRef]] = {
            ref.digest: (step, ref)
            # Reversed: if several steps have the same reward model, the first one counts, because it trained the model.
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
                f"No run and no registered model has weights with the digest {digest}",
                reason="WEIGHTS_NOT_FOUND",
            )
        if len(found) > 1:
            raise InvalidArgument.at("weights_digest", f"is a prefix of {len(found)} digests. Pass more characters")
        (step, ref) = next(iter(found.values()))
        made = step is not None and ref.digest in (step.policy.digest, step.reward_model.digest)
        return self._back(step) if step is not None and made else self._from(ref)

    def trained_on(self, snapshots: Iterable[str]) -> list[controller_v1.TrainedModel]:
        """The steps that learnt from a snapshot, directly or through a policy or reward model that they started
        from."""
        wanted = set(snapshots)
        learnt: set[str] = set()
        before = -1
        # Repeat until nothing is added: a run may be older than the run that produced its models.
        while before != len(learnt):
            before = len(learnt)
            for step in self.steps:
                if wanted & _snapshots(step) or learnt & _came_from(step):
                    learnt |= {step.policy.digest, step.reward_model.digest} - {""}
        return [
            controller_v1.TrainedModel(
                step=step, snapshots=sorted(wanted & _snapshots(step)), through=sorted(learnt & _came_from(step))
            )
            for step in self.steps
            if wanted & _snapshots(step) or learnt & _came_from(step)
        ]

    def _back(self, step: controller_v1.LineageStep) -> controller_v1.GetModelLineageResponse:
        """The step and the steps behind its starting point, followed by the steps behind everything else that they
        learnt from."""
        steps = self._line(step)
        base = steps[-1].started_from
        for known in steps:  # grows during the loop
            for ref in known.also_learnt_from:
                made = self._maker_of(ref.digest, known)
                steps += [other for other in self._line(made) if not _among(other, steps)] if made is not None else []
        return controller_v1.GetModelLineageResponse(steps=steps, base=base)

    def _line(self, step: controller_v1.LineageStep) -> list[controller_v1.LineageStep]:
        """The step, the step that produced its starting point, and so on."""
        line = [step]
        while (earlier := self._maker(line[-1])) is not None and not _among(earlier, line):
            line.append(earlier)
        return line

    def _from(self, ref: types_v1.WeightsRef) -> controller_v1.GetModelLineageResponse:
        """The lineage of weights that no step of their run produced; another run may have produced them."""
        made = next((step for step in self.steps if step.policy.digest == ref.digest), None)
        return self._back(made) if made is not None else controller_v1.GetModelLineageResponse(base=ref)

    def _maker(self, step: controller_v1.LineageStep) -> controller_v1.LineageStep | None:
        """The step that produced the starting point of this one, preferably in the same run."""
        return self._maker_of(step.started_from.digest, step)

    def _maker_of(self, digest: str, step: controller_v1.LineageStep) -> controller_v1.LineageStep | None:
        """The step that produced weights that `step` came from, preferably in the same run."""
        made = [
            other
            for other in self.steps
            if digest and digest in (other.policy.digest, other.reward_model.digest) and other is not step
        ]
        own = [other for other in made if other.run_id == step.run_id and other.iteration < step.iteration]
        return own[-1] if own else made[0] if made else None

    def _made(self, run_id: str, iteration: int) -> controller_v1.LineageStep | None:
        return next((step for step in self.steps if (step.run_id, step.iteration) == (run_id, iteration)), None)


def _snapshots(step: controller_v1.LineageStep) -> set[str]:
    """The snapshots that the step was trained on."""
    return {step.prompt_snapshot, step.preference_snapshot}


def _came_from(step: controller_v1.LineageStep) -> set[str]:
    """The digests of the weights that the step's models came from, except those that it produced."""
    own = {step.policy.digest, step.reward_model.digest, ""}
    return {step.started_from.digest, *(ref.digest for ref in step.also_learnt_from)} - own


def _among(step: controller_v1.LineageStep, steps: Sequence[controller_v1.LineageStep]) -> bool:
    return any(step is other for other in steps)


def lineage_of(
    runs: Iterable[tuple[str, controller_v1.RunSpec, Sequence[controller_v1.IterationResult]]],
    models: Iterable[controller_v1.Model],
) -> Lineage:
    """Lineage from the resolved spec and the results of every run, oldest run first. Results from releases that did not
    record origins are completed: each iteration starts from the last one promoted before it, and the reward model from
    the registered model that the spec names."""
    by_name = {model.name: model for model in models}
    # The first model with each digest: the same weights may be the base of several runs.
    names: dict[str, str] = {}
    for model in sorted(by_name.values(), key=lambda model: model.create_time.ToNanoseconds()):
        names.setdefault(model.weights.digest, model.name)
    steps = []
    for run_id, spec, results in runs:
        active = types_v1.WeightsRef()
        reward_base = by_name.get(spec.reward_model.model.removeprefix(files.REGISTRY))
        known = [reward_base.weights] if reward_base is not None else []
        for result in results:
            if result.iteration:
                started = result.started_from if result.HasField("started_from") else active
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
                        also_learnt_from=result.also_learnt_from or known,
                    )
                )
            if result.promoted:
                active = result.policy
    return Lineage(steps, by_name)


def no_model(name: str) -> NotFound:
    """The error for a name that is not in the registry."""
    return NotFound(f"No model named {name} exists. List the models with: accord models list", reason="MODEL_NOT_FOUND")
