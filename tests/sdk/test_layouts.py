"""Files of other tools: what is written reads back the same, what they write is read, and wrong items are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from accord import errors, formats
from accord.conversations import conversation
from accord.formats.layouts.layout import detect
from accord.preference import v1 as preference_v1
from accord.types import v1 as types_v1

HUMAN, MODEL = preference_v1.ANNOTATOR_KIND_HUMAN, preference_v1.ANNOTATOR_KIND_MODEL
DIALOGUE = "\n\nHuman: Hi.\n\nAssistant: Hello!\n\nHuman: 2 + 2?\n\nAssistant:"


def record(texts: dict[str, str], *, prompt: types_v1.Conversation | None = None, **rest: Any) -> Any:
    return preference_v1.ImportRecord(
        prompt=prompt or conversation("Why?\n é 🎉 \0"),
        completions=[preference_v1.ImportCompletion(local_id=name, text=text) for name, text in texts.items()],
        annotator=preference_v1.Annotator(annotator_id="ann", kind=MODEL),
        source="s",
        **rest,
    )


def cut_off(record: Any, *names: str) -> Any:
    """The record with these answers cut off."""
    for answer in record.completions:
        if answer.local_id in names:
            answer.finish_reason = types_v1.FINISH_REASON_LENGTH
    return record


def pair(**rest: Any) -> Any:
    given = {"chosen_id": "chosen", "rejected_id": "rejected"}
    return preference_v1.Comparison(**given, **rest)


def records() -> dict[str, list[Any]]:
    """Records of each form that tempt a writer to change them."""
    turns = [("system", "Be brief."), ("user", "a"), ("assistant", " b\n"), ("user", "\n\nHuman: c")]
    chat = types_v1.Conversation(messages=[types_v1.ChatMessage(role=r, content=c) for r, c in turns])
    two = {"chosen": " yes \n", "rejected": ""}
    three = {"0": "x", "1": " y", "2": "z\u2028"}

    def ranking(*ranks: list[str]) -> Any:
        return preference_v1.Ranking(ranks=[preference_v1.Rank(completion_ids=ids) for ids in ranks])

    criterion = preference_v1.Rating(completion_id="chosen", value=4, min=1, max=5, criterion="helpful")
    return {
        "pairs": [
            record(two, comparison=pair()),
            record(two, comparison=pair(margin=0.1 + 0.2), comment="because\n"),
            record(two, comparison=pair(tie=True), prompt=chat, criteria=[criterion]),
            cut_off(record(two, comparison=pair()), "chosen"),
            cut_off(record(two, comparison=pair()), "chosen", "rejected"),
        ],
        "rankings": [
            record(three, ranking=ranking(["2"], ["0", "1"])),
            record(three, ranking=ranking(["1"], ["0"], ["2"])),
            cut_off(record(three, ranking=ranking(["1"], ["0"], ["2"])), "1"),
        ],
        "ratings": [
            record({"response": "r"}, rating=preference_v1.Rating(completion_id="response", value=0.7)),
            cut_off(
                record({"response": "r"}, rating=preference_v1.Rating(completion_id="response", value=0.7)), "response"
            ),
            record(
                {"response": ""},
                prompt=chat,
                rating=preference_v1.Rating(completion_id="response", value=-2, min=-5, max=5, criterion="tone"),
            ),
        ],
        "labels": [record({"response": "r"}, rating=preference_v1.Rating(completion_id="response", value=1))],
    }


EXACT = [
    (layout, form)
    for layout in ("jsonl", "trl", "argilla", "label-studio", "parquet")
    for form in ("pairs", "rankings", "ratings")
    if (layout, form) != ("trl", "ratings")
] + [("trl", "labels")]


@pytest.mark.parametrize(("layout", "form"), EXACT)
def test_what_is_written_reads_back_the_same(tmp_path: Path, layout: str, form: str) -> None:
    chosen, written = records()[form], formats.layout_of(layout)
    path = tmp_path / f"data{written.suffix}"
    assert written.write(path, chosen) == len(chosen)
    parsed = formats.read(path, format=layout)
    assert parsed.records == chosen
    assert parsed.places == list(range(1, len(chosen) + 1))
    assert not parsed.ignored_keys
    assert formats.read(path).records == chosen  # found by what it holds
    again = tmp_path / f"again{written.suffix}"
    written.write(again, parsed.records)
    assert again.read_bytes() == path.read_bytes()


def test_hh_rlhf_comes_back_byte_for_byte(tmp_path: Path) -> None:
    lines = [{"chosen": f"{DIALOGUE} {n}", "rejected": f"{DIALOGUE} not {n} é"} for n in range(5)]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    parsed = formats.read(path, format="hh-rlhf")
    assert [turn.role for turn in parsed.records[0].prompt.messages] == ["user", "assistant", "user"]
    assert formats.layout_of("hh-rlhf").write(tmp_path / "out.jsonl", parsed.records) == 5
    assert (tmp_path / "out.jsonl").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "given",
    [
        {"comparison": pair(tie=True)},
        {"comparison": pair(margin=1)},
        {
            "comparison": pair(),
            "prompt": types_v1.Conversation(messages=[types_v1.ChatMessage(role="system", content="x")]),
        },
        {"comparison": pair(), "texts": {"chosen": " spaces ", "rejected": "b"}},
        {"comparison": pair(), "texts": {"chosen": "a\n\nHuman: b\n\nAssistant: c", "rejected": "b"}},
    ],
    ids=["tie", "margin", "system", "spaces", "turns"],
)
def test_hh_rlhf_refuses_what_it_cannot_hold_and_writes_nothing(tmp_path: Path, given: dict[str, Any]) -> None:
    texts = given.pop("texts", {"chosen": "a", "rejected": "b"})
    with pytest.raises(errors.InvalidArgument, match="export as jsonl") as caught:
        formats.layout_of("hh-rlhf").write(tmp_path / "out.jsonl", [record(texts, **given)])
    assert caught.value.reason == "NOT_IN_FORMAT"
    assert not list(tmp_path.iterdir())


def test_rating_that_is_no_label_is_refused_by_trl(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="not a label of TRL"):
        formats.layout_of("trl").write(tmp_path / "out.jsonl", records()["ratings"])


def test_argilla_export_of_several_people_is_read(tmp_path: Path) -> None:
    fields = {"prompt": [{"role": "user", "content": "q"}], "first": "a", "second": "b"}
    item = {
        "id": "1",
        "status": "completed",
        "fields": fields,
        "metadata": {"length": 3},
        "suggestions": {"better": {"value": "first", "agent": "gpt"}},
        "responses": {
            "better": [
                {"value": "second", "user_id": "u1"},
                {"value": "tie", "user_id": "u2", "status": "submitted"},
                {"value": "first", "user_id": "u3", "status": "draft"},
            ]
        },
    }
    waiting = {**item, "responses": {}}
    path = tmp_path / "export.json"
    path.write_text(json.dumps([item, waiting], indent=2))
    parsed = formats.read(path)
    assert (parsed.format, parsed.empty_items, parsed.places) == ("argilla", 1, [1, 1])
    first, second = parsed.records
    assert {one.local_id: one.text for one in first.completions} == {"chosen": "b", "rejected": "a"}
    assert (first.annotator.annotator_id, second.annotator.annotator_id) == ("u1", "u2")
    assert (first.comparison.tie, second.comparison.tie) == (False, True)


def test_label_studio_export_is_read(tmp_path: Path) -> None:
    def task(kind: str, value: Any, to_name: str, **data: str) -> dict[str, Any]:
        result = {"type": kind, "value": value, "from_name": "x", "to_name": to_name}
        note = {"type": "textarea", "value": {"text": ["fine"]}, "from_name": "n", "to_name": "answer1"}
        done = {"id": 1, "completed_by": {"id": 7, "email": "a@b.c"}, "was_cancelled": False, "result": [result, note]}
        skipped = {"id": 2, "completed_by": 8, "was_cancelled": True, "result": []}
        return {"id": 5, "data": {"prompt": "q", **data}, "annotations": [done, skipped], "predictions": []}

    path = tmp_path / "export.json"
    answers = {"answer1": "a", "answer2": "b"}
    path.write_text(json.dumps([task("pairwise", {"selected": "right"}, "answer1,answer2", **answers, topic="maths")]))
    (one,) = formats.read(path).records
    assert {answer.local_id: answer.text for answer in one.completions} == {"chosen": "b", "rejected": "a"}
    assert one.annotator.annotator_id == "a@b.c"
    path.write_text(json.dumps([task("ranker", {"ranker": {"best": ["answer2", "answer1"]}}, "", **answers)]))
    (one,) = formats.read(path).records
    assert [list(rank.completion_ids) for rank in one.ranking.ranks] == [["1"], ["0"]]
    path.write_text(json.dumps([{**task("rating", {"rating": 4}, "", answer1="a"), "meta": {"min": 1, "max": 5}}]))
    (one,) = formats.read(path).records
    assert (one.rating.value, one.rating.min, one.rating.max) == (4, 1, 5)


ARGILLA = {"fields": {"prompt": "q", "a": "x", "b": "y"}, "responses": {"better": [{"value": "a"}]}}
TASK = {"data": {"prompt": "q", "a": "x", "b": "y"}, "annotations": []}


@pytest.mark.parametrize(
    ("layout", "item", "message"),
    [
        ("argilla", {"fields": {"prompt": "q"}}, "`fields` must contain"),
        ("argilla", {**ARGILLA, "responses": {"better": [{"value": "c"}]}}, "it must be a, b or tie"),
        ("argilla", {**ARGILLA, "responses": {"better": [{"value": ["a"]}]}}, "does not match the answers: b"),
        ("argilla", {**ARGILLA, "responses": {"better": [{"value": 3}]}}, "needs one answer, not 2"),
        ("argilla", {**ARGILLA, "responses": {"better": [{"value": None}]}}, "not a label, ranking or rating"),
        ("label-studio", {"data": {}}, "`data` must contain"),
        (
            "label-studio",
            {**TASK, "annotations": [{"result": [{"type": "pairwise", "value": {"selected": "up"}}]}]},
            "left",
        ),
        ("label-studio", {**TASK, "annotations": [{"result": [3]}]}, "`result` contains an invalid element"),
        ("hh-rlhf", {"chosen": "a", "rejected": "b"}, "not a dialogue"),
        ("hh-rlhf", {"chosen": f"{DIALOGUE} a"}, "`rejected` is missing"),
        ("trl", {"prompt": "q", "completion": "a", "label": 1}, "`label` must be true or false"),
        (
            "jsonl",
            {"prompt": "q", "chosen": "a", "rejected": "b", "criteria": [{"answer": "x"}]},
            r"`criteria\[0\]` must",
        ),
    ],
)
def test_a_wrong_item_is_named(tmp_path: Path, layout: str, item: dict[str, Any], message: str) -> None:
    good = {"argilla": ARGILLA, "label-studio": TASK, "trl": {"prompt": "q", "completion": "a", "label": True}}
    first = good.get(layout, {"chosen": f"{DIALOGUE} a", "rejected": f"{DIALOGUE} b"})
    path = tmp_path / "data"
    path.write_text(json.dumps(first) + "\n" + json.dumps(item) + "\n")
    with pytest.raises(errors.InvalidArgument, match=message) as caught:
        formats.read(path, format=layout)
    assert caught.value.reason == "BAD_LINE"
    assert caught.value.metadata["line"] == "2"


def test_one_bad_line_of_a_hundred_thousand_is_named(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    good = json.dumps({"prompt": "q", "chosen": "a", "rejected": "b"}) + "\n"
    path.write_text(good * 70_000 + good[:-9] + "\n" + good * 29_999)
    with pytest.raises(errors.InvalidArgument, match=r"many\.jsonl:70001: not valid JSON"):
        formats.read(path)


def test_damaged_files_and_unknown_formats_are_told(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    formats.layout_of("parquet").write(path, records()["pairs"])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(errors.InvalidArgument, match="not a complete Parquet file"):
        formats.read(path)
    (tmp_path / "cut.json").write_text(json.dumps([ARGILLA, ARGILLA])[:-30])
    with pytest.raises(errors.InvalidArgument, match="not valid JSON"):
        formats.read(tmp_path / "cut.json", format="argilla")
    with pytest.raises(errors.InvalidArgument, match="available: argilla, hh-rlhf, jsonl"):
        formats.layout_of("xml")
    with pytest.raises(errors.NotFound, match="nowhere"):
        detect(tmp_path / "nowhere")


PLUG_IN = """
import csv

class CsvPairs:
    suffix = ".csv"

    def recognizes(self, head):
        return head.data.startswith(b"question,good,bad")

    def items(self, path):
        with open(path) as file:
            yield from enumerate(csv.DictReader(file), start=2)

    def lines(self, item):
        return [{"prompt": item["question"], "chosen": item["good"], "rejected": item["bad"]}]

    def write(self, path, records):
        raise NotImplementedError
"""


def test_one_file_and_one_entry_point_add_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site"
    (package / "csv_pairs-1.dist-info").mkdir(parents=True)
    (package / "csv_pairs-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: csv-pairs\nVersion: 1\n")
    (package / "csv_pairs-1.dist-info" / "entry_points.txt").write_text("[accord.formats]\ncsv = csv_pairs:CsvPairs\n")
    (package / "csv_pairs.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(str(package))
    path = tmp_path / "mine.csv"
    path.write_text("question,good,bad\nq,a,b\n")
    assert "csv" in formats.layout_names()
    (one,) = formats.read(path, format="csv").records
    assert {answer.local_id: answer.text for answer in one.completions} == {"chosen": "a", "rejected": "b"}
    detected = formats.read(path)
    assert (detected.format, detected.records) == ("csv", [one])


def test_a_format_that_cannot_be_imported_does_not_break_the_detection_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site"
    (package / "broken-1.dist-info").mkdir(parents=True)
    (package / "broken-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (package / "broken-1.dist-info" / "entry_points.txt").write_text("[accord.formats]\naaa = no_such_module:Layout\n")
    monkeypatch.syspath_prepend(str(package))
    path = tmp_path / "array.json"
    path.write_text(json.dumps([ARGILLA]))
    assert detect(path) == "argilla"
    with pytest.raises(errors.FailedPrecondition) as named:
        formats.read(path, format="aaa")
    assert named.value.reason == "PLUGIN_BROKEN"


def test_an_array_is_recognized_by_its_first_element_however_long_that_is(tmp_path: Path) -> None:
    long = {"id": "x" * 200_000, **ARGILLA}
    (tmp_path / "argilla.json").write_text(json.dumps([long]))
    assert detect(tmp_path / "argilla.json") == "argilla"
    (tmp_path / "tasks.json").write_text(json.dumps([{"meta": {"fields": "y" * 200_000}, **TASK}]))
    assert detect(tmp_path / "tasks.json") == "label-studio"


def test_an_array_that_no_layout_recognizes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "array.json"
    path.write_text(json.dumps([{"prompt": "q", "chosen": "a", "rejected": "b"}]))
    with pytest.raises(errors.InvalidArgument, match="one object per line") as caught:
        formats.read(path)
    assert caught.value.reason == "BAD_LINE"


@pytest.mark.parametrize("layout", ["jsonl", "trl", "parquet"])
def test_datasets_loads_what_is_exported(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    written = formats.layout_of(layout)
    path = tmp_path / f"data{written.suffix}"
    chosen = records()["pairs"][:2]
    written.write(path, chosen)
    kind = "parquet" if layout == "parquet" else "json"
    loaded = datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == 2
    answer = loaded[0]["chosen"]
    assert (answer if layout == "jsonl" else answer[-1]["content"]) == " yes \n"
    assert loaded[1]["margin"] == 0.1 + 0.2
    # And a dataset that was saved again is read as the same records.
    back = tmp_path / "back.parquet"
    loaded.to_parquet(str(back))
    if layout != "jsonl":
        assert formats.read(back).records == chosen
