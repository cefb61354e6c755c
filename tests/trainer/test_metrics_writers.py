"""Figures of steps on disk: each step once, whatever restarts happened, and never a step lost for their sake."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.trainer import pairs, request_id, trainer, training

from accord import plugins
from accord.errors import InvalidArgument
from accord.trainer import v1 as trainer_v1
from accord_trainer.metrics.log import MetricsLog
from accord_trainer.metrics.writer import GROUP

WRITERS = plugins.names(GROUP)


def read(name: str, folder: Path) -> dict[int, float]:
    """version -> loss, by the format's own reader; a version that stands there twice fails."""
    if name == "jsonl":
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert len({line["version"] for line in lines}) == len(lines)
        return {line["version"]: line["loss"] for line in lines}
    if name == "wandb":
        return read_wandb(folder)
    if name == "mlflow":
        return read_mlflow(folder)
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = event_accumulator.EventAccumulator(str(folder / "tensorboard")).Reload().Scalars("loss")
    assert len({event.step for event in events}) == len(events)
    return {event.step: event.value for event in events}


def read_mlflow(folder: Path) -> dict[int, float]:
    """Of the one run that is not in the bin."""
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (experiment,) = [one for one in client.search_experiments() if one.name == f"accord/{folder.name}"]
    (run,) = client.search_runs([experiment.experiment_id])
    points = client.get_metric_history(run.info.run_id, "loss")
    assert len({point.step for point in points}) == len(points)
    return {point.step: point.value for point in points}


def read_wandb(folder: Path) -> dict[int, float]:
    """Of the files that `wandb sync` would send: where runs of the group overlap, the later one counts."""
    pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    runs: list[tuple[int, dict[int, float]]] = []
    for file in folder.glob("wandb/offline-run-*/run-*.wandb"):
        first, points = -1, {}
        for data in leveldb_records(file.read_bytes()):
            record = pb.TrainingHistory.FromString(data)
            for update in record.run.config.update:
                first = int(json.loads(update.value_json)) if update.key == "first_version" else first
            row = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
            if "loss" in row:
                points[record.history.step.num] = float(json.loads(row["loss"]))
        assert all(step >= first for step in points)
        runs.append((first, points))
    return {step: value for _, points in sorted(runs, key=lambda run: run[0]) for step, value in points.items()}


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format: blocks of 32 KiB, parts with crc, length and type, a header before."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


def result(version: int, loss: float) -> trainer_v1.StepResult:
    return trainer_v1.StepResult(training_id="t", version=version, metrics={"loss": loss}, seconds=0.5)


@pytest.mark.parametrize("name", WRITERS)
def test_steps_made_again_after_a_restart_replace_the_first(name: str, tmp_path: Path) -> None:
    """wandb and mlflow are not in the extra `dev`: they bring 33 packages and 150 MB."""
    if name in ("wandb", "mlflow"):
        pytest.importorskip(name)
    first = MetricsLog([name], lambda training_id: tmp_path / training_id)
    for version in range(1, 6):
        first.write(result(version, float(version)))
    first.close()
    second = MetricsLog([name], lambda training_id: tmp_path / training_id)
    second.write(result(4, 40.0))
    second.write(result(5, 50.0))
    second.close()
    expected = pytest.approx({1: 1, 2: 2, 3: 3, 4: 40, 5: 50})
    deadline = time.monotonic() + 30  # wandb writes from a separate process
    while name == "wandb" and read(name, tmp_path / "t") != expected and time.monotonic() < deadline:
        time.sleep(0.2)
    assert read(name, tmp_path / "t") == expected


def test_a_line_that_a_crash_cut_short_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t/metrics.jsonl").write_text('{"version": 1, "loss": 1.0}\n{"version": 2, "lo')
    metrics_log = MetricsLog(["jsonl"], lambda training_id: tmp_path / training_id)
    metrics_log.write(result(2, 2.0))
    metrics_log.close()
    assert read("jsonl", tmp_path / "t") == {1: 1.0, 2: 2.0}


def test_a_writer_that_fails_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t").write_text("in the way")
    metrics_log = MetricsLog(["jsonl"], lambda training_id: tmp_path / training_id)
    metrics_log.write(result(1, 1.0))
    metrics_log.write(result(2, 2.0))
    assert caplog.text.count("Metrics failed") == 1


def test_an_unknown_writer_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match="jsonl, mlflow, tensorboard, wandb"):
        MetricsLog(["pigeon"], Path)


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
