"""Import, export and counts through a real preference service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.command import accord_command, lines, preference_service

pytestmark = pytest.mark.process

PAIRS = [
    {"prompt": "How are you?", "chosen": "Fine, thanks.", "rejected": "Go away.", "source": "test"},
    {"prompt": "2 + 2?", "chosen": "4", "rejected": "5", "source": "test"},
]
RANKING = {"prompt": "Name a fruit.", "responses": ["apple", "stone"], "ranks": [0, 1]}


def write(folder: Path, name: str, *rows: object) -> str:
    (folder / name).write_text(lines([json.dumps(row) for row in rows]))
    return name


async def test_what_is_imported_is_exported_and_imported_again_as_duplicates(tmp_path: Path) -> None:
    async with preference_service(tmp_path):
        name = write(tmp_path, "pairs.jsonl", *PAIRS)
        first = await accord_command(tmp_path, "preferences", "import", name, "--annotator", "ann", "--json")
        assert (first.code, json.loads(first.out)["feedback"]) == (0, 2), first.err
        exported = await accord_command(tmp_path, "preferences", "export", "out/again.jsonl")
        assert exported.code == 0, exported.err
        rows = [json.loads(line) for line in (tmp_path / "out/again.jsonl").read_text().splitlines()]
        assert {row["prompt"]: row["chosen"] for row in rows} == {row["prompt"]: row["chosen"] for row in PAIRS}
        assert {(row["annotator"], row["source"]) for row in rows} == {("ann", "test")}
        second = await accord_command(tmp_path, "preferences", "import", "out/again.jsonl", "--json")
        assert json.loads(second.out) == {
            "records": 2, "prompts": 0, "completions": 0, "feedback": 0, "duplicates": 2,
        }  # fmt: skip


async def test_a_broken_line_is_named_and_none_of_the_files_is_kept(tmp_path: Path) -> None:
    async with preference_service(tmp_path) as client:
        good = write(tmp_path, "good.jsonl", *PAIRS)
        (tmp_path / "cut.jsonl").write_text(json.dumps(PAIRS[0]) + "\n" + json.dumps(PAIRS[1])[:30])
        ran = await accord_command(tmp_path, "preferences", "import", good, "cut.jsonl")
        assert ran.code == 1
        assert "cut.jsonl:2:" in ran.err
        assert "[BAD_LINE]" in ran.err
        assert "Traceback" not in ran.err
        assert (await client.preferences.stats()).prompts == 0


async def test_one_bad_line_of_a_hundred_thousand_is_named_and_nothing_is_kept(tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": f"q{number}", "chosen": "a", "rejected": "b"}) for number in range(100_000)]
    lines[70_000] = lines[70_000].replace('"chosen"', '"chose')
    (tmp_path / "many.jsonl").write_text("\n".join(lines) + "\n")
    async with preference_service(tmp_path) as client:
        ran = await accord_command(tmp_path, "preferences", "import", "many.jsonl")
        assert (ran.code, "many.jsonl:70001:" in ran.err, "[BAD_LINE]" in ran.err) == (1, True, True)
        assert (await client.preferences.stats()).prompts == 0


async def test_stats_for_programs(tmp_path: Path) -> None:
    async with preference_service(tmp_path):
        await accord_command(tmp_path, "preferences", "import", write(tmp_path, "a.jsonl", *PAIRS))
        stats = json.loads((await accord_command(tmp_path, "preferences", "stats", "-f", "json")).out)
        assert (stats["prompts"], stats["comparisons"], stats["rankings"]) == (2, 2, 0)
        assert sum(row["count"] for row in stats["feedback"]) == 2
        assert {(row["source"], row["annotator_kind"]) for row in stats["feedback"]} == {("test", "human")}


async def test_a_file_holds_one_form_and_the_choice_is_the_users(tmp_path: Path) -> None:
    async with preference_service(tmp_path):
        await accord_command(tmp_path, "preferences", "import", write(tmp_path, "a.jsonl", *PAIRS))
        await accord_command(tmp_path, "preferences", "import", write(tmp_path, "b.jsonl", RANKING))
        unclear = await accord_command(tmp_path, "preferences", "export", "out.jsonl")
        assert (unclear.code, "2 pairs, 1 rankings" in unclear.err) == (1, True)
        assert not (tmp_path / "out.jsonl").exists()
        ranked = await accord_command(tmp_path, "preferences", "export", "-", "--form", "rankings")
        assert json.loads(ranked.out)["responses"] == ["apple", "stone"]
        prompts = await accord_command(tmp_path, "preferences", "export", "-", "--form", "prompts", "--source", "b")
        assert [json.loads(line)["prompt"] for line in prompts.out.splitlines()] == ["Name a fruit."]


async def test_exports_for_other_tools_are_imported_again_as_duplicates(tmp_path: Path) -> None:
    async with preference_service(tmp_path):
        await accord_command(tmp_path, "preferences", "import", write(tmp_path, "pairs.jsonl", *PAIRS), "-a", "ann")
        for layout, name in [("argilla", "a.json"), ("label-studio", "l.json"), ("parquet", "p.parquet")]:
            out = await accord_command(tmp_path, "preferences", "export", name, "--format", layout)
            assert (out.code, f"2 records ({layout})" in out.err) == (0, True), out.err
            again = await accord_command(tmp_path, "preferences", "import", name, "--json")
            assert json.loads(again.out)["duplicates"] == 2, again.err
        refused = await accord_command(tmp_path, "preferences", "export", "-", "--format", "parquet")
        assert (refused.code, "go with jsonl" in refused.err) == (2, True)


async def test_an_answer_of_ten_megabytes_is_refused_by_its_line_and_nothing_kept(tmp_path: Path) -> None:
    async with preference_service(tmp_path) as client:
        huge = {"prompt": "q", "chosen": "a", "rejected": "b" * 10_000_000}
        files = [write(tmp_path, "good.jsonl", *PAIRS), write(tmp_path, "huge.jsonl", PAIRS[0], huge)]
        ran = await accord_command(tmp_path, "preferences", "import", *files)
        assert ran.code == 1
        said = " ".join(ran.err.split())
        assert "huge.jsonl:2:" in said
        assert "10,000,000 bytes, and at most 1,048,576" in said
        assert (await client.preferences.stats()).prompts == 0
