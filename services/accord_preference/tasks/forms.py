"""The other contents of a task: the known answer of a gold task, the criteria and the instructions."""

from __future__ import annotations

import json
import math

from accord.errors import InvalidArgument
from accord.preference import v1 as preference_v1
from accord_preference.domain.canonical import canonical_json
from accord_preference.domain.judgement import KIND_NAMES, read_judgement, read_text
from accord_preference.storage.store import TaskRow


def read_gold(task: preference_v1.Task, path: str) -> str | None:
    """The known answer as canonical JSON, or None if the task is not a gold task. InvalidArgument if it does not answer
    the task."""
    if not task.HasField("gold"):
        return None
    field = f"{path}gold."
    known = read_judgement(task.gold, field)
    if known.kind != task.kind:
        raise InvalidArgument.at(f"{field}judgement", f"the task asks for a {KIND_NAMES[task.kind]}")
    if set(known.completion_ids) != set(task.completion_ids):
        raise InvalidArgument.at(f"{field}judgement", "must judge exactly the task's completions")
    tolerance = task.gold.tolerance if task.gold.HasField("tolerance") else None
    if tolerance is not None and not (math.isfinite(tolerance) and tolerance >= 0):
        raise InvalidArgument.at(f"{field}tolerance", f"is {tolerance}; must be a number of at least 0")
    return canonical_json({"value": known.value, "tolerance": tolerance})


def read_form(task: preference_v1.Task, path: str) -> str:
    """Criteria and instructions as canonical JSON; "" if there are none. InvalidArgument for an invalid criterion."""
    criteria: dict[str, dict[str, object]] = {}
    for index, criterion in enumerate(task.criteria):
        field = f"{path}criteria[{index}]."
        if not criterion.name or criterion.name in criteria:
            raise InvalidArgument.at(f"{field}name", "is used twice" if criterion.name else "must be set")
        low = criterion.min if criterion.HasField("min") else 1.0
        high = criterion.max if criterion.HasField("max") else 5.0
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InvalidArgument.at(f"{field}max", f"is {high:g}; must be a number above min, which is {low:g}")
        description = read_text(criterion.description, f"{field}description")
        criteria[criterion.name] = {"name": criterion.name, "description": description, "min": low, "max": high}
    instructions = read_text(task.instructions, f"{path}instructions")
    form = {"criteria": list(criteria.values()), "instructions": instructions}
    return canonical_json(form) if any(form.values()) else ""


def criteria_of(task: TaskRow) -> list[str]:
    """The names of the criteria that a task asks for."""
    return [criterion["name"] for criterion in json.loads(task.form or "{}").get("criteria", ())]
