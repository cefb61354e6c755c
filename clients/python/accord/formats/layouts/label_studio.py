"""The JSON that Label Studio exports: tasks with data, and annotations of them.

`data.prompt` is a text or a list of messages. The other texts of `data` are the answers; if there are more, those that
the control names. Results of the tags Pairwise (left, right; nothing selected: a tie), Ranker and Rating are read. Each
annotation is a judgement by the person who completed it, unless it was cancelled.
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


class LabelStudioLayout:
    """Tasks with annotations."""

    suffix = ".json"

    def recognizes(self, head: Head) -> bool:
        return head.is_array and not head.keys.isdisjoint(("data", "annotations"))

    def items(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        return elements(path)

    def lines(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        data = item.get("data")
        if not isinstance(data, dict) or "prompt" not in data:
            raise BadLine("`data` must contain `prompt` and the answers")
        beside = {name: value for name, value in (item.get("meta") or {}).items() if name in BESIDE}
        found = []
        for annotation in item.get("annotations") or []:
            if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
                raise BadLine(f"`annotations` contains an invalid element: {shown(annotation)}")
            if annotation.get("was_cancelled"):
                continue
            by = annotation.get("completed_by")
            person = by.get("email") or by.get("id") if isinstance(by, dict) else by
            who = {} if person is None else {"annotator": str(person)}
            lines = [_judged(data, result) for result in annotation["result"]]
            found += [{**line, **beside, **who} for line in lines if line is not None]
        return found

    def write(self, path: Path, records: Iterable[preference_v1.ImportRecord]) -> int:
        """Writes one task for each judgement."""
        items = [_item(number, record) for number, record in enumerate(records, start=1)]
        write_lines(path, array(items))
        return len(items)


def _judged(data: dict[str, Any], result: Any) -> dict[str, Any] | None:
    if not isinstance(result, dict) or not isinstance(result.get("value"), dict):
        raise BadLine(f"`result` contains an invalid element: {shown(result)}")
    value, kind = result["value"], result.get("type")
    others = {name: text for name, text in data.items() if name != "prompt" and isinstance(text, str | list)}
    shown_names = [name for name in str(result.get("to_name", "")).split(",") if name in others]
    answers = {name: others[name] for name in shown_names} if shown_names else others
    if kind == "pairwise":
        chosen = value.get("selected")
        sides = dict(zip(("left", "right"), answers, strict=False))
        if chosen not in (None, "", *sides):
            raise BadLine(f"`selected` is {shown(chosen)}; it must be left or right")
        return compared(data["prompt"], answers, sides.get(chosen, "tie"))
    if kind == "ranker":
        order = value.get("ranker")
        order = next(iter(order.values()), None) if isinstance(order, dict) and len(order) == 1 else order
        if not isinstance(order, list):
            raise BadLine(f"`ranker` must be one list of answers, best first, not {shown(order)}")
        ranks = [one if isinstance(one, list) else [one] for one in order]
        return ranked(data["prompt"], answers, {str(name): at for at, names in enumerate(ranks) for name in names})
    return rated(data["prompt"], answers, value.get("rating")) if kind == "rating" else None


def _item(number: int, record: preference_v1.ImportRecord) -> dict[str, Any]:
    line, answers = named(record, ["answer"])
    which = record.WhichOneof("judgement")
    value: dict[str, Any]
    if which == "comparison":
        kind, value = "pairwise", {"selected": None if line.get("tie") else "left"}
    elif which == "ranking":
        names = list(answers)
        ranks = [[names[int(name)] for name in rank.completion_ids] for rank in record.ranking.ranks]
        kind, value = "ranker", {"ranker": {"ranking": ranks}}
    else:
        kind, value = "rating", {"rating": line["rating"]}
    result = {"from_name": "preference", "to_name": ",".join(answers), "type": kind, "value": value}
    return {
        "id": number,
        "data": {"prompt": line["prompt"], **answers},
        "annotations": [{"id": number, "completed_by": line["annotator"], "was_cancelled": False, "result": [result]}],
        "meta": {name: line[name] for name in BESIDE if name in line},
    }
