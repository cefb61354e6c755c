"""What the live display says, from events alone."""

from __future__ import annotations

import io
from collections import deque

from rich.console import Console
from tests.support.example_run import events

from accord.cli.commands.gc import size
from accord.cli.render.output import clean
from accord.cli.render.progress import Progress, describe, render, spark
from accord.controller import v1 as controller_v1
from accord.report.text import clock, duration


def step(sequence: int, number: int, at: int, **metrics: float) -> controller_v1.RunEvent:
    event = controller_v1.RunEvent(
        run_id="demo", sequence=sequence, iteration=1, stage=controller_v1.STAGE_POLICY, kind="step", step=number,
        total_steps=10, metrics=metrics,
    )  # fmt: skip
    event.time.FromSeconds(1_000 + at)
    return event


def test_a_step_shows_stage_step_reward_kl_pace_and_eta() -> None:
    progress = Progress("demo", 2)
    progress.apply(step(1, 3, 0, reward=0.25, kl_k1=1.5, samples_per_second=2.25, eta_seconds=70))
    assert progress.line() == (
        "demo: iteration 1/2 · policy 3/10  reward 0.250  KL 1.50 nats  samples/s 2.2  ETA 1 min 10 s"
    )


def test_eta_is_computed_from_the_pace_where_the_run_says_none() -> None:
    progress = Progress("demo")
    progress.apply(step(1, 1, 0, reward=0.1))
    assert progress.eta_seconds() is None
    progress.apply(step(2, 2, 10, reward=0.1))
    progress.apply(step(3, 3, 30, reward=0.1))
    assert progress.eta_seconds() == 7 * 15.0


def test_events_seen_before_change_nothing_and_a_new_stage_starts_clean() -> None:
    progress = Progress("demo")
    progress.apply(step(5, 9, 0, reward=0.9))
    progress.apply(step(5, 1, 5, reward=0.1))
    assert (progress.step, progress.metrics["reward"]) == (9, 0.9)
    begun = controller_v1.RunEvent(sequence=6, iteration=1, stage=controller_v1.STAGE_EVALUATE, kind="stage_started")
    progress.apply(begun)
    assert progress.where() == "iteration 1/1 · evaluate"
    assert progress.figures() == []


def test_a_whole_run_renders_at_every_event() -> None:
    progress = Progress("demo", 2, simulated=True)
    console = Console(file=io.StringIO(), width=100)
    for event in events():
        progress.apply(event)
        console.print(render(progress))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "iteration 2/2 · policy 20/20" in text
    assert "SIMULATED ANNOTATORS" in text


def test_what_happened_is_said_once_and_steps_are_not() -> None:
    assert describe(step(1, 1, 0)) is None
    event = controller_v1.RunEvent(iteration=2, stage=controller_v1.STAGE_REWARD_MODEL, kind="retry", message="timeout")
    assert describe(event) == "iteration 2 · reward model: retrying – timeout"
    assert describe(controller_v1.RunEvent(kind="of_a_newer_controller", message="hello")) == "hello"


def test_times_sizes_and_sparks_read_well() -> None:
    assert [duration(s) for s in (0.5, 59.6, 187, 7_500)] == ["500 ms", "1 min 00 s", "3 min 07 s", "2 h 05 min"]
    assert [clock(s) for s in (7, 482, 3_723)] == ["0:07", "8:02", "1:02:03"]
    assert [size(n) for n in (512, 1536, 283_115_520)] == ["512 B", "1.5 KiB", "270.0 MiB"]
    assert spark(deque([0.0, 0.5, 1.0])) == "▁▅█"
    assert spark(deque([1.0, 1.0])) == "▁▁"


def test_text_of_models_cannot_drive_the_terminal() -> None:
    assert clean("a\x1b[2Jb\nc\td\r\x9b\u202e") == "a\\x1b[2Jb\nc\td\\x0d\\x9b\\x202e"
    assert clean("naïve 🙂 日本語") == "naïve 🙂 日本語"
