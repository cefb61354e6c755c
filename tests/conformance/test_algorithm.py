"""`python -m accord_trainer.conformance`: every registered algorithm passes, and each check catches its fault."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import pytest
import torch
from pydantic import ConfigDict

from accord import plugins
from accord.conformance.verdict import Verdict
from accord.errors import InvalidArgument
from accord_trainer.algorithm import Experience, StepContext
from accord_trainer.algorithms.sft import SFT, SftOptions
from accord_trainer.conformance import checks as checks  # fills CHECKS
from accord_trainer.conformance.__main__ import main
from accord_trainer.conformance.check import CHECKS
from accord_trainer.conformance.suite import conformance
from accord_trainer.trainings.training import GROUP

pytestmark = pytest.mark.process


@pytest.mark.parametrize("name", plugins.names(GROUP))
def test_every_registered_algorithm_meets_every_requirement(name: str) -> None:
    found = {outcome.check.name: outcome for outcome in conformance(plugins.load(GROUP, name))}
    assert list(found) == [check.name for check in CHECKS]
    assert {check: one.detail for check, one in found.items() if one.verdict is Verdict.unmet} == {}
    skipped = {check for check, one in found.items() if one.verdict is Verdict.skipped}
    assert skipped <= {"cutting-a-minibatch-changes-nothing"}


class DemandingOptions(SftOptions):
    temper: int


class NeedsAnOption(SFT):
    options_type = DemandingOptions


class TolerantOptions(SftOptions):
    model_config = ConfigDict(extra="ignore")


class TakesAnyOption(SFT):
    options_type = TolerantOptions


class TakesAnything(SFT):
    def check(self, batch: Experience) -> None:
        pass


class ReportsNaN(SFT):
    def step(self, batch: Experience, context: StepContext) -> dict[str, float]:
        return {**super().step(batch, context), "loss": float("nan")}


class LearnsNothing(SFT):
    def step(self, batch: Experience, context: StepContext) -> dict[str, float]:
        return self.evaluate(batch, context)


class LearnsFromEvaluation(SFT):
    def evaluate(self, batch: Experience, context: StepContext) -> dict[str, float]:
        return self.step(batch, context)


class Unseeded(SFT):
    def step(self, batch: Experience, context: StepContext) -> dict[str, float]:
        metrics = super().step(batch, context)
        with torch.no_grad():
            next(iter(self.state().weights.values())).mul_(1 + random.SystemRandom().random())
        return metrics


class CountsInPrivate(SFT):
    steps = 0

    def step(self, batch: Experience, context: StepContext) -> dict[str, float]:
        self.steps += 1
        return [super(CountsInPrivate, self).step(batch, context) for _ in range(self.steps)][-1]


class CannotBeStopped(SFT):
    def step(self, batch: Experience, context: StepContext) -> dict[str, float]:
        return super().step(batch, StepContext(context.version, context.generator, lambda: None))


class IgnoresTheStop(SFT):
    def step(self, batch: Experience, context: StepContext) -> dict[str, float]:
        with suppress(Exception):
            return super().step(batch, context)
        return {"loss": 0.0}


class CountsParts(SFT):
    def step(self, batch: Experience, context: StepContext) -> dict[str, float]:
        parts = 2 if self.options.micro_batch_tokens < 100 else 1
        return [super(CountsParts, self).step(batch, context) for _ in range(parts)][-1]


class PublishesMore(SFT):
    def merged(self) -> Any:
        model = super().merged()
        model.register_parameter("surplus", torch.nn.Parameter(torch.ones(2)))
        return model


FAULTS = [
    ("defaults-are-valid", NeedsAnOption, "temper"),
    ("unknown-options-are-refused", TakesAnyOption, "no_such_option was accepted"),
    ("the-other-kind-is-refused", TakesAnything, "accepted a batch without preferences"),
    ("a-step-learns", ReportsNaN, "not finite"),
    ("a-step-learns", LearnsNothing, "the weights did not change"),
    ("evaluation-changes-nothing", LearnsFromEvaluation, "changed the weights"),
    ("the-same-seed-gives-the-same-weights", Unseeded, "two runs gave"),
    ("a-restored-training-continues-the-same", CountsInPrivate, "after the restore"),
    ("a-failed-step-is-undone", CountsInPrivate, "the step gives different weights"),
    ("a-failed-step-is-undone", CannotBeStopped, "never calls"),
    ("a-failed-step-is-undone", IgnoresTheStop, "ignored an exception"),
    ("cutting-a-minibatch-changes-nothing", CountsParts, "differ by up to"),
    ("the-published-folder-loads", PublishesMore, "surplus"),
]


@pytest.mark.parametrize(("name", "broken", "words"), FAULTS)
def test_a_broken_algorithm_fails_the_check_of_its_fault(name: str, broken: type[SFT], words: str) -> None:
    (outcome,) = conformance(broken, only=[name])
    assert outcome.verdict is Verdict.unmet
    assert words in outcome.detail


def test_each_check_is_known_to_catch_a_fault() -> None:
    assert {name for name, _, _ in FAULTS} == {check.name for check in CHECKS}


def test_the_command_prints_a_table_and_its_exit_code_says_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sft", "--only", "*options*", "--option", "max_tokens=64"]) == 0
    assert "unknown-options-are-refused" in capsys.readouterr().out
    assert main([f"{__name__}:TakesAnyOption", "--only", "unknown-*"]) == 1
    assert "To fix it" in capsys.readouterr().out
    assert main(["alchemy"]) == 1
    assert f"available: {', '.join(plugins.names(GROUP))}" in capsys.readouterr().err
    with pytest.raises(InvalidArgument, match="available: defaults-are-valid"):
        list(conformance(SFT, only=["nothing"]))
