"""Figures of steps on disk: each step once, whatever restarts happened, and never a step lost for their sake."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from tests.trainer.trainer_bench import pairs, request_id, trainer, training

from accord.errors import InvalidArgument
from accord.trainer import v1 as trainer_v1
from accord_runtime import plugins
from accord_trainer.curves import Curves
from accord_trainer.metrics_writer import GROUP

WRITERS = plugins.names(GROUP)


def read(name: str, folder: Path) -> dict[int, float]:
    """version -> loss, by the format's own reader; a version that stands there twice fails."""
    if name == "jsonl":
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert len({line["version"] for line in lines}) == len(lines)
        return {line["version"]: line["loss"] for line in lines}
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = event_accumulator.EventAccumulator(str(folder / "tensorboard")).Reload().Scalars("loss")
    assert len({event.step for event in events}) == len(events)
    return {event.step: event.value for event in events}


def result(version: int, loss: float) -> trainer_v1.StepResult:
    return trainer_v1.StepResult(training_id="t", version=version, metrics={"loss": loss}, seconds=0.5)


@pytest.mark.parametrize("name", WRITERS)
def test_steps_made_again_after_a_restart_replace_the_first(name: str, tmp_path: Path) -> None:
    first = Curves([name], lambda training_id: tmp_path / training_id)
    for version in range(1, 6):
        first.write(result(version, float(version)))
    first.close()
    second = Curves([name], lambda training_id: tmp_path / training_id)
    second.write(result(4, 40.0))
    second.write(result(5, 50.0))
    second.close()
    assert read(name, tmp_path / "t") == pytest.approx({1: 1, 2: 2, 3: 3, 4: 40, 5: 50})


def test_a_line_that_a_crash_cut_short_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t/metrics.jsonl").write_text('{"version": 1, "loss": 1.0}\n{"version": 2, "lo')
    curves = Curves(["jsonl"], lambda training_id: tmp_path / training_id)
    curves.write(result(2, 2.0))
    curves.close()
    assert read("jsonl", tmp_path / "t") == {1: 1.0, 2: 2.0}


def test_a_writer_that_fails_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t").write_text("in the way")
    curves = Curves(["jsonl"], lambda training_id: tmp_path / training_id)
    curves.write(result(1, 1.0))
    curves.write(result(2, 2.0))
    assert caplog.text.count("metrics could not be handled") == 1


def test_an_unknown_writer_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match="jsonl, tensorboard"):
        Curves(["pigeon"], Path)


async def test_the_service_writes_what_it_answers(tiny_folder: Path, tmp_path: Path) -> None:
    answered = {}
    async with trainer(tmp_path, metrics="jsonl,tensorboard") as client:
        await client.trainer.create_training(training(tiny_folder, algorithm="reward_model"))
        for version in range(3):
            put = await client.trainer.put_experience("t", preferences=pairs(4))
            made = await client.trainer.step("t", put.batch_id, parent_version=version, request_id=request_id())
            answered[made.version] = made.metrics["loss"]
    folder = tmp_path / "trainer" / "t"
    assert read("jsonl", folder) == pytest.approx(answered)
    assert read("tensorboard", folder) == pytest.approx(answered, rel=1e-5)
    assert all(math.isfinite(value) for value in answered.values())
