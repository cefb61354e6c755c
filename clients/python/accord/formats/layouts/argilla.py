"""The JSON that Argilla 2 exports (`dataset.records.to_json`): records with fields, and responses by question.

The field `prompt` is a text or a chat; the other fields are the answers. A response's value is the name of the better
of two answers or `tie` (label question), a list of all names, best first, or of {"value", "rank"} (ranking question),
or a number (rating question). Each user's response is a judgement. Drafts and suggestions are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from accord.formats.layouts.judged import BESIDE, array, compared, elements, named, ranked, rated
from accord.formats.layouts.layout import Head
from accord.formats.lines import BadLine, shown
from accord.formats.writing import write_lines
from accord.preference import v1 as preference_v1


class ArgillaLayout:
    """Records with fields and responses."""

    suffix = ".json"

    def recognizes(self, head: Head) -> bool:
        return "fields" in head.keys and (head.is_array or "responses" in head.keys)

    def items(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        return elements(path)

    def lines(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        fields = item.get("fields")
        if not isinstance(fields, dict) or "prompt" not in fields or len(fields) < 2:
            raise BadLine("`fields` must contain `prompt` and the answers")
        answers = {name: value for name, value in fields.items() if name != "prompt" and value is not None}
        beside = {name: value for name, value in (item.get("metadata") or {}).items() if name in BESIDE}
        found = []
        for question, given in (item.get("responses") or {}).items():
            if not isinstance(given, list):
                raise BadLine(f"`responses.{question}` must be a list, not {shown(given)}")
            for response in given:
                if not isinstance(response, dict) or "value" not in response:
                    raise BadLine(f"`responses.{question}` is not a list of responses: {shown(response)}")
                if response.get("status", "submitted") != "submitted":
                    continue
                line = _judged(fields["prompt"], answers, response["value"], question)
                user = response.get("user_id")
                found.append({**line, **beside, **({"annotator": str(user)} if user is not None else {})})
        return found

    def write(self, path: Path, records: Iterable[preference_v1.ImportRecord]) -> int:
        """Writes one record for each judgement."""
        items = [_item(number, record) for number, record in enumerate(records)]
        write_lines(path, array(items))
        return len(items)


def _judged(prompt: Any, answers: dict[str, Any], value: Any, question: str) -> dict[str, Any]:
    if isinstance(value, str):
        return compared(prompt, answers, value)
    if isinstance(value, list):
        if all(isinstance(one, str) for one in value):
            return ranked(prompt, answers, {name: place for place, name in enumerate(value)})
        if all(isinstance(one, dict) and isinstance(one.get("rank"), int) and "value" in one for one in value):
            return ranked(prompt, answers, {str(one["value"]): one["rank"] for one in value})
    elif isinstance(value, int | float) and not isinstance(value, bool):
        return rated(prompt, answers, value)
    raise BadLine(f"`responses.{question}` is {shown(value)}, which is not a label, ranking or rating of the answers")


def _item(number: int, record: preference_v1.ImportRecord) -> dict[str, Any]:
    line, answers = named(record, ["response"])
    which = record.WhichOneof("judgement")
    value: Any = line.get("rating")
    if which == "comparison":
        value = "tie" if line.get("tie") else "response1"
    elif which == "ranking":
        value = [{"value": name, "rank": rank} for name, rank in zip(answers, line["ranks"], strict=True)]
    return {
        "id": str(number),
        "fields": {"prompt": line["prompt"], **answers},
        "metadata": {name: line[name] for name in BESIDE if name in line},
        "suggestions": {},
        "responses": {"preference": [{"value": value, "user_id": line["annotator"], "status": "submitted"}]},
    }
