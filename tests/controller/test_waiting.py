"""When a run that waits for people continues."""

from __future__ import annotations

from typing import Any

import pytest

from accord.controller import v1 as controller_v1
from accord.preference import v1 as preference_v1
from accord_controller.stages.waiting import how_far, why_enough

TASKS = 20


def enough(people: dict[str, Any], queue: dict[str, Any], waited: float = 0.0) -> str:
    spec = controller_v1.HumanAnnotators(**{"threshold": 1.0, "redundancy": 1, **people})
    state = preference_v1.GetQueueResponse(**{"open_tasks": 5, **queue})
    return why_enough(spec, state, TASKS, waited)


@pytest.mark.parametrize(
    ("people", "queue", "waited", "said"),
    [
        ({"threshold": 0.5}, {"done_tasks": 9}, 0, ""),
        ({"threshold": 0.5}, {"done_tasks": 10}, 0, "10 tasks were answered"),
        ({"min_judgements": 7}, {"done_tasks": 3, "feedback": 6}, 0, ""),
        ({"min_judgements": 7}, {"done_tasks": 3, "feedback": 7}, 0, "7 judgements were given"),
        ({"threshold": 0.5, "min_agreement": 0.4}, {"done_tasks": 10}, 0, ""),
        ({"threshold": 0.5, "min_agreement": 0.4}, {"done_tasks": 10, "alpha": 0.3}, 0, ""),
        ({"threshold": 0.5, "min_agreement": 0.4}, {"done_tasks": 10, "alpha": 0.45}, 0, "with alpha 0.45"),
        # No task is left: it does not wait for an agreement that cannot come.
        ({"min_agreement": 0.9}, {"open_tasks": 0, "done_tasks": 18, "alpha": 0.1}, 0, "no open task"),
        ({"max_wait_seconds": 60.0}, {"feedback": 1}, 59, ""),
        ({"max_wait_seconds": 60.0}, {"feedback": 1}, 61, "seconds have passed"),
        ({"max_wait_seconds": 60.0}, {"feedback": 0}, 1000, ""),
        ({"max_wait_seconds": 60.0, "min_agreement": 0.9}, {"feedback": 4, "alpha": 0.0}, 61, "seconds have passed"),
    ],
)
def test_it_continues_at_its_threshold(people: dict[str, Any], queue: dict[str, Any], waited: float, said: str) -> None:
    reason = enough(people, queue, waited)
    assert bool(reason) == bool(said)
    assert said in reason


def test_what_people_see_follows_the_rate() -> None:
    people = controller_v1.HumanAnnotators(threshold=1.0, redundancy=2, min_agreement=0.5)
    state = preference_v1.GetQueueResponse(done_tasks=5, feedback=12, recent_feedback=20, open_tasks=15)
    said = how_far(people, state, TASKS, "demo/iteration-1")
    assert "5 of 20 tasks" in said
    assert "2.0 judgements per minute, about 15 minutes left" in said
    assert "alpha not known yet (required: 0.5)" in said
    assert "demo/iteration-1" in said
