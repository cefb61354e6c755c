"""Preference files: every form is read, written exactly, and a wrong line is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from accord import errors, formats
from accord.formats import Form, dialogue
from accord.preference import v1 as preference_v1
from accord.types import v1 as types_v1

PAIR = {"prompt": "Say hello.", "chosen": "Hello!", "rejected": "No."}
USER = {"role": "user", "content": "Say hello."}


def file_of(folder: Path, *lines: dict[str, Any] | str) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x, ensure_ascii=False)) + "\n" for x in lines))
    return path


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def turns(record: preference_v1.ImportRecord) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in record.prompt.messages]


def texts(record: preference_v1.ImportRecord) -> dict[str, str]:
    return {completion.local_id: completion.text for completion in record.completions}


@pytest.mark.parametrize(
    "line",
    [
        PAIR,
        {"prompt": [USER], "chosen": [assistant("Hello!")], "rejected": [assistant("No.")]},
        {"prompt": "Say hello.", "chosen": [USER, assistant("Hello!")], "rejected": [USER, assistant("No.")]},
        {"chosen": [USER, assistant("Hello!")], "rejected": [USER, assistant("No.")]},
        {"prompt": "\n\nHuman: Say hello.\n\nAssistant:", "chosen": "Hello!", "rejected": "No."},
        {
            "chosen": "\n\nHuman: Say hello.\n\nAssistant: Hello!",
            "rejected": "\n\nHuman: Say hello.\n\nAssistant: No.",
        },
    ],
    ids=["text", "trl", "trl-with-history", "trl-implicit", "dialogue", "hh-rlhf-implicit"],
)
def test_every_way_to_write_a_pair_is_the_same_record(tmp_path: Path, line: dict[str, Any]) -> None:
    parsed = formats.read(file_of(tmp_path, line))
    (record,) = parsed.records
    assert parsed.form is Form.PAIRS
    assert turns(record) == [("user", "Say hello.")]
    assert texts(record) == {"chosen": "Hello!", "rejected": "No."}
    assert (record.comparison.chosen_id, record.comparison.rejected_id) == ("chosen", "rejected")
    assert (record.annotator.annotator_id, record.annotator.kind) == ("imported", preference_v1.ANNOTATOR_KIND_HUMAN)


def test_a_raw_dialogue_becomes_turns_and_a_text_that_mentions_one_does_not(tmp_path: Path) -> None:
    asked = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nIt is\n\nsunny.\n\nHuman: Is it?\nHuman: yes\n\nAssistant:"
    quoted = "Complete this:\n\nHuman: Hi\n\nAssistant:"
    dialogue_record, text_record = formats.read(file_of(tmp_path, {"prompt": asked}, {"prompt": quoted})).records
    assert turns(dialogue_record) == [
        ("user", "Hi"),
        ("assistant", "Hello.\n\nIt is\n\nsunny."),
        ("user", "Is it?\nHuman: yes"),
    ]
    assert turns(text_record) == [("user", quoted)]


def test_rankings_ratings_and_prompts_are_told_apart_by_file(tmp_path: Path) -> None:
    ranking = {"prompt": "q", "responses": ["a", "b", "c"], "ranks": [1, 0, 1], "annotator": "ann"}
    (record,) = formats.read(file_of(tmp_path, ranking)).records
    assert [list(rank.completion_ids) for rank in record.ranking.ranks] == [["1"], ["0", "2"]]
    assert texts(record) == {"0": "a", "1": "b", "2": "c"}
    assert record.annotator.annotator_id == "ann"

    rating = {"prompt": "q", "response": "a", "rating": 4, "min": 1, "max": 5, "criterion": "helpful"}
    (record,) = formats.read(file_of(tmp_path, rating), annotator_kind="model").records
    assert (record.rating.value, record.rating.min, record.rating.max) == (4, 1, 5)
    assert record.rating.criterion == "helpful"
    assert record.annotator.kind == preference_v1.ANNOTATOR_KIND_MODEL

    parsed = formats.read(file_of(tmp_path, {"prompt": "q", "source": "s"}, "", {"prompt": "r"}), source="given")
    assert parsed.form is Form.PROMPTS
    assert [record.source for record in parsed.records] == ["s", "given"]
    assert not parsed.records[0].HasField("annotator")


def test_keys_that_no_form_has_are_counted_and_said(tmp_path: Path) -> None:
    parsed = formats.read(file_of(tmp_path, {**PAIR, "agree": 3}, {**PAIR, "agree": 2, "id": 1}))
    assert parsed.ignored_keys == {"agree": 2, "id": 1}


WRONG_LINES = {
    "cut off": (json.dumps(PAIR)[:38], "not valid JSON: Unterminated string .*cut off"),
    "cut off between": ('{"prompt": "q", "chosen":', "not valid JSON: .*cut off"),
    "not an object": ("[1, 2]", "must be a JSON object, not"),
    "rejected missing": ({"prompt": "q", "chosen": "a"}, "`chosen` without `rejected`"),
    "prompt missing": ({"chosen": "a", "rejected": "b"}, "`prompt` is missing, and"),
    "other form": ({"prompt": "q", "response": "a", "rating": 1}, "a line of ratings in a file of pairs"),
    "unknown form": ({"question": "q"}, "expected one of {prompt}, {prompt, chosen, rejected}, .*; found question"),
    "not a text": ({**PAIR, "chosen": 3}, "`chosen` must be a text or a list of messages, not 3"),
    "null prompt": ({**PAIR, "prompt": None}, "`prompt` must be a text, not null"),
    "empty prompt": ({**PAIR, "prompt": "  "}, "`prompt` is empty"),
    "wrong role": ({**PAIR, "prompt": [{"role": "human", "content": "q"}]}, r"`prompt\[0\]`: `role` must be one of"),
    "no content": ({**PAIR, "prompt": [{"role": "user"}]}, r"`prompt\[0\]` must be a mapping of `role` and `content`"),
    "other prompt": (
        {**PAIR, "chosen": [{**USER, "content": "x"}, assistant("a")]},
        "first messages differ from `prompt`",
    ),
    "user answers": ({**PAIR, "rejected": [USER]}, "`rejected` must end with an assistant message"),
    "margin": ({**PAIR, "margin": -1}, "`margin` must be at least 0, not -1"),
    "infinite": ('{"prompt": "q", "chosen": "a", "rejected": "b", "margin": NaN}', "NaN is not JSON"),
    "tie": ({**PAIR, "tie": "yes"}, "`tie` must be true or false"),
    "annotator kind": ({**PAIR, "annotator_kind": "robot"}, "`annotator_kind` must be one of human, simulated, model"),
    "nobody": ({**PAIR, "annotator": ""}, "`annotator` is empty"),
    "huge": ('{"prompt": "q", "chosen": "a", "rejected": "b", "margin": 1e999}', "`margin` must be a finite number"),
    "endless": ('{"prompt": "q", "chosen": "a", "rejected": "b", "margin": 1' + "0" * 5000 + "}", "not valid JSON"),
    "twice": ('{"prompt": "q", "prompt": "r", "chosen": "a", "rejected": "b"}', "the key 'prompt' is given twice"),
    "half a character": ('{"prompt": "\\ud83d", "chosen": "a", "rejected": "b"}', "half of a character"),
    "different prompts": ({"chosen": [USER, assistant("a")], "rejected": [assistant("b"), assistant("c")]}, "the same"),
}


@pytest.mark.parametrize(("line", "message"), WRONG_LINES.values(), ids=WRONG_LINES.keys())
def test_a_wrong_line_is_named_and_nothing_is_returned(tmp_path: Path, line: Any, message: str) -> None:
    path = file_of(tmp_path, PAIR, "", line)
    with pytest.raises(errors.InvalidArgument, match=message) as raised:
        formats.read(path)
    assert str(raised.value).startswith(f"{path}:3: ")
    assert raised.value.reason == "BAD_LINE"
    assert raised.value.metadata == {"file": str(path), "line": "3"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"prompt": "q", "responses": ["a"], "ranks": [0]}, "`responses` must be a list of two or more"),
        ({"prompt": "q", "responses": ["a", "b"], "ranks": [0]}, "2 `responses` but 1 `ranks`"),
        ({"prompt": "q", "responses": ["a", "b"], "ranks": [0, True]}, "`ranks` must be a list of whole numbers"),
        ({"prompt": "q", "responses": ["a", "b"]}, "`responses` without `ranks`"),
        ({"prompt": "q", "response": "a", "rating": 4}, "`rating` 4 is outside its scale, 0 to 1"),
        ({"prompt": "q", "response": "a", "rating": "4"}, "`rating` must be a finite number"),
        ({"response": "a", "rating": 1}, "`prompt` is missing"),
    ],
)
def test_a_wrong_ranking_or_rating_is_named(tmp_path: Path, line: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"data\.jsonl:1: .*" + message):
        formats.read(file_of(tmp_path, line))


def test_files_that_are_missing_empty_or_not_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(errors.NotFound, match=r"nowhere\.jsonl"):
        formats.read(tmp_path / "nowhere.jsonl")
    with pytest.raises(errors.InvalidArgument, match="no lines"):
        formats.read(file_of(tmp_path))
    path = file_of(tmp_path, PAIR)
    path.write_bytes(path.read_bytes() + b'{"prompt": "\xff"}\n')
    with pytest.raises(errors.InvalidArgument, match=r"data\.jsonl:2: not UTF-8"):
        formats.read(path)


def prompts() -> list[types_v1.Conversation]:
    """Prompts that tempt a writer to change them."""
    conversations = [
        [("user", "plain")],
        [("user", "  spaces, tabs\t and ends \n")],
        [("user", "Human: a dialogue in a text\n\nAssistant:")],
        [("user", " ")],
        [("system", "Be brief."), ("user", "q")],
        [("user", "a"), ("assistant", "b"), ("user", "c")],
        [("user", "a "), ("assistant", ""), ("user", "c\n\nHuman: d")],
        [("user", "a"), ("assistant", "b")],
        [("user", "Ärger 😀 \u2028 \u0000")],
    ]
    messages = [[types_v1.ChatMessage(role=role, content=content) for role, content in c] for c in conversations]
    return [types_v1.Conversation(messages=m) for m in messages]


def stored_records() -> dict[str, list[preference_v1.Record]]:
    """Records as the preference service exports them, by form."""
    human = preference_v1.Annotator(annotator_id="alice", kind=preference_v1.ANNOTATOR_KIND_HUMAN)
    simulated = preference_v1.Annotator(annotator_id="simulated-0", kind=preference_v1.ANNOTATOR_KIND_SIMULATED)
    found: dict[str, list[preference_v1.Record]] = {"prompts": [], "pairs": [], "rankings": [], "ratings": []}
    for conversation in prompts():
        prompt = preference_v1.Prompt(prompt_id="p", conversation=conversation, source="s")
        answers = [preference_v1.Completion(completion_id=f"c{i}", text=f" answer {i}\n") for i in range(3)]
        answers[2].text = ""
        feedback = [
            preference_v1.Feedback(
                annotator=human, comparison=preference_v1.Comparison(chosen_id="c1", rejected_id="c0", margin=0.0)
            ),
            preference_v1.Feedback(
                annotator=simulated, comparison=preference_v1.Comparison(chosen_id="c2", rejected_id="c1", tie=True)
            ),
            preference_v1.Feedback(
                annotator=simulated,
                ranking=preference_v1.Ranking(
                    ranks=[preference_v1.Rank(completion_ids=ids) for ids in (["c2"], ["c1", "c0"])]
                ),
            ),
            preference_v1.Feedback(
                source="f", annotator=human, rating=preference_v1.Rating(completion_id="c0", value=0.1 + 0.2)
            ),
            preference_v1.Feedback(
                annotator=human,
                rating=preference_v1.Rating(completion_id="c0", value=-3, min=-5, max=0, criterion="tone"),
            ),
        ]
        found["prompts"].append(preference_v1.Record(prompt=prompt))
        for form, index in [("pairs", 0), ("pairs", 1), ("rankings", 2), ("ratings", 3), ("ratings", 4)]:
            found[form].append(preference_v1.Record(prompt=prompt, completions=answers, feedback=feedback[index]))
    return found


@pytest.mark.parametrize("style", ["text", "conversational"])
@pytest.mark.parametrize("form", ["prompts", "pairs", "rankings", "ratings"])
def test_what_is_written_reads_back_the_same(tmp_path: Path, form: str, style: formats.writing.Style) -> None:
    records = [formats.from_record(record) for record in stored_records()[form]]
    path = tmp_path / "out.jsonl"
    assert formats.write(path, records, style=style) == len(records) == path.read_bytes().count(b"\n")
    parsed = formats.read(path)
    assert parsed.form.value == form
    assert parsed.records == records
    assert not parsed.ignored_keys


def test_a_stored_record_keeps_judgement_annotator_and_source() -> None:
    records = stored_records()
    ranking = formats.from_record(records["rankings"][0])
    assert texts(ranking) == {"0": " answer 0\n", "1": " answer 1\n", "2": ""}
    assert [list(rank.completion_ids) for rank in ranking.ranking.ranks] == [["2"], ["0", "1"]]
    pair = formats.from_record(records["pairs"][0])
    assert texts(pair) == {"chosen": " answer 1\n", "rejected": " answer 0\n"}
    assert pair.comparison.HasField("margin")
    assert [formats.from_record(record).source for record in records["ratings"][:2]] == ["f", "s"]


def test_single_turns_are_written_as_texts_and_dialogues_as_dialogues() -> None:
    lines = [json.loads(formats.to_line(preference_v1.ImportRecord(prompt=prompt))) for prompt in prompts()]
    assert lines[0]["prompt"] == "plain"
    assert lines[5]["prompt"] == "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    assert [type(line["prompt"]).__name__ for line in lines[2:5]] == ["list", "list", "list"]
    assert dialogue.render([types_v1.ChatMessage(role="system", content="x")]) is None


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("precious\n")
    bad = preference_v1.ImportRecord(prompt=prompts()[0])
    bad.completions.add(local_id="a", text="an answer that nobody judged")
    with pytest.raises(errors.InvalidArgument, match="no judgement"):
        formats.write(path, [preference_v1.ImportRecord(prompt=prompts()[0]), bad])
    assert path.read_text() == "precious\n"
    assert list(tmp_path.iterdir()) == [path]
