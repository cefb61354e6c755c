"""Where models come from and what learnt from what, over runs that build on one another."""

from __future__ import annotations

import pytest

from accord.controller import v1 as controller_v1
from accord.errors import NotFound
from accord.types import v1 as types_v1
from accord_controller.models.lineage import Lineage, lineage_of

SPEC = controller_v1.RunSpec()


def ref(name: str) -> types_v1.WeightsRef:
    return types_v1.WeightsRef(uri=f"file:///{name}", digest=f"{name:-<16}", format="merged")


def result(run: str, number: int, started: str, *, promoted: bool = True) -> controller_v1.IterationResult:
    return controller_v1.IterationResult(
        iteration=number,
        policy=ref(f"{run}-p{number}"),
        reward_model=ref(f"{run}-r{number}"),
        prompt_snapshot=f"{run}-prompts",
        preference_snapshot=f"{run}-prefs{number}",
        promoted=promoted,
        started_from=ref(started) if started else None,
    )


def model(name: str, weights: str, run: str, number: int) -> controller_v1.Model:
    return controller_v1.Model(name=name, weights=ref(weights), run_id=run, iteration=number)


@pytest.fixture
def lineage() -> Lineage:
    """Run a: base, 1 promoted, 2 not, 3 promoted. Run b starts from a's third."""
    zero = controller_v1.IterationResult(iteration=0, policy=ref("base"), promoted=True)
    again = controller_v1.IterationResult(iteration=0, policy=ref("a-p3"), promoted=True)
    runs = [
        # The first two were recorded before runs said what they started from.
        ("a", SPEC, [zero, result("a", 1, ""), result("a", 2, "", promoted=False), result("a", 3, "a-p1")]),
        ("b", SPEC, [again, result("b", 1, "a-p3")]),
    ]
    models = [
        model("a-0", "base", "a", 0), model("a-1", "a-p1", "a", 1), model("a-3", "a-p3", "a", 3),
        model("b-0", "a-p3", "b", 0), model("b-1", "b-p1", "b", 1),
    ]  # fmt: skip
    return lineage_of(runs, models)


def steps(found: controller_v1.GetModelLineageResponse) -> list[str]:
    return [f"{step.run_id}-{step.iteration}" for step in found.steps]


def test_a_model_goes_back_over_runs_to_the_base_and_past_what_was_not_promoted(lineage: Lineage) -> None:
    found = lineage.of_model("b-1")
    assert steps(found) == ["b-1", "a-3", "a-1"]
    assert found.base.digest == ref("base").digest
    assert [step.started_from_model for step in found.steps] == ["a-3", "a-1", "a-0"]
    assert found.steps[1].preference_snapshot == "a-prefs3"


def test_any_weights_are_found_by_the_start_of_their_digest(lineage: Lineage) -> None:
    assert steps(lineage.of_digest("a-p2----")) == ["a-2", "a-1"]
    assert lineage.of_digest("a-p2----").steps[0].model == ""
    assert steps(lineage.of_digest("a-r3----")) == ["a-3", "a-1"]
    assert steps(lineage.of_digest("base----")) == []
    assert lineage.of_digest("base----").base.digest == ref("base").digest
    with pytest.raises(NotFound):
        lineage.of_digest("unknown-digest")
    with pytest.raises(NotFound):
        lineage.of_model("c-1")


def test_a_base_model_has_no_steps_and_one_that_another_run_made_has_those_of_that_run(lineage: Lineage) -> None:
    assert steps(lineage.of_model("a-0")) == []
    assert steps(lineage.of_model("b-0")) == ["a-3", "a-1"]


def test_what_learnt_from_a_snapshot_is_named_with_what_started_from_it(lineage: Lineage) -> None:
    found = lineage.trained_on(["a-prefs1"])
    assert [(f"{one.step.run_id}-{one.step.iteration}", list(one.snapshots)) for one in found] == [
        ("a-1", ["a-prefs1"]),
        ("a-2", []),
        ("a-3", []),
        ("b-1", []),
    ]
    assert [one.step.iteration for one in lineage.trained_on(["a-prefs2"])] == [2]  # nothing started from it
    assert len(lineage.trained_on(["a-prompts", "b-prompts"])) == 4
    assert lineage.trained_on(["other"]) == []


def test_what_learnt_through_a_reward_model_that_came_from_a_tainted_one_is_named(lineage: Lineage) -> None:
    """Nothing of these runs' policies started from run a: only their reward models did, each from the one before."""
    fresh = controller_v1.IterationResult(iteration=0, policy=ref("other-base"), promoted=True)
    from_policy = result("c", 1, "other-base")
    from_policy.also_learnt_from.append(ref("a-p1"))
    from_reward_model = result("d", 1, "other-base")
    from_reward_model.also_learnt_from.append(ref("c-r1"))
    mixed = result("e", 1, "other-base")
    mixed.also_learnt_from.extend([ref("other-base"), types_v1.WeightsRef(digest=ref("d-r1").digest)])
    clean = result("f", 1, "other-base")
    clean.also_learnt_from.append(ref("other-base"))
    a = ("a", SPEC, [result("a", 1, "base")])
    others = [(one.policy.digest[0], SPEC, [fresh, one]) for one in (from_policy, from_reward_model, mixed, clean)]
    # Also where a run that had to wait for its models is older than the one that made them.
    for runs in ([a, *others], [*reversed(others), a]):
        found = lineage_of(runs, []).trained_on(["a-prefs1"])
        assert {one.step.run_id: (list(one.snapshots), list(one.through)) for one in found} == {
            "a": (["a-prefs1"], []),
            "c": ([], [ref("a-p1").digest]),
            "d": ([], [ref("c-r1").digest]),
            "e": ([], [ref("d-r1").digest]),
        }
    behind = lineage_of([a, *others], [model("e-1", "e-p1", "e", 1)]).of_model("e-1")
    assert steps(behind) == ["e-1", "d-1", "c-1", "a-1"]
    assert behind.base.digest == ref("other-base").digest


def test_a_run_of_before_that_named_its_reward_model_in_the_registry_is_found_too() -> None:
    spec = controller_v1.RunSpec(reward_model={"model": "models/a-1"})
    runs = [("a", SPEC, [result("a", 1, "base")]), ("g", spec, [result("g", 1, "other-base")])]
    found = lineage_of(runs, [model("a-1", "a-p1", "a", 1)]).trained_on(["a-prefs1"])
    assert [one.step.run_id for one in found] == ["a", "g"]
