"""Quality, annotators and lineage as people and programs read them, from real services."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.command import accord_command, preference_service
from tests.support.loop_services import controller_here

import accord
from accord.preference import v1 as preference_v1
from accord.types import v1 as types_v1

pytestmark = pytest.mark.process


async def judge(client: accord.Client, names: tuple[str, ...], pairs: int) -> None:
    """Everybody judges every pair alike but the last, who is of another opinion."""
    records = []
    for number in range(pairs):
        turns = types_v1.Conversation(messages=[types_v1.ChatMessage(role="user", content=f"Question {number}?")])
        for name in names:
            chosen, rejected = ("b", "a") if name == names[-1] else ("a", "b")
            records.append(
                preference_v1.ImportRecord(
                    prompt=turns,
                    completions=[
                        preference_v1.ImportCompletion(local_id="a", text="Yes, certainly."),
                        preference_v1.ImportCompletion(local_id="b", text="No."),
                    ],
                    comparison=preference_v1.Comparison(chosen_id=chosen, rejected_id=rejected),
                    annotator=preference_v1.Annotator(annotator_id=name, kind=preference_v1.ANNOTATOR_KIND_HUMAN),
                )
            )
    await client.preferences.import_records(records)


async def test_quality_is_a_table_and_json(tmp_path: Path) -> None:
    async with preference_service(tmp_path) as client:
        empty = await accord_command(tmp_path, "preferences", "quality")
        assert (empty.code, "No judgements yet" in empty.out) == (0, True)
        await judge(client, ("ann", "bob", "odd"), 12)
        ran = await accord_command(tmp_path, "preferences", "quality")
        assert ran.code == 0, ran.err
        assert "human annotators" in ran.out
        assert "alpha" in ran.out
        [kind] = json.loads((await accord_command(tmp_path, "preferences", "quality", "-f", "json")).out)
        assert (kind["kind"], kind["judgements"], kind["shared_pairs"]) == ("human", 36, 12)
        people = {one["annotator_id"]: one for one in kind["annotators"]}
        assert people["odd"]["consensus_agreement"] == 0
        assert people["ann"]["reliability"] > 0.8 > 0.5 > people["odd"]["reliability"]
        assert people["ann"]["gold_accuracy"] is None


async def test_a_withdrawn_annotator_is_traced_to_the_models_that_learned_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with preference_service(tmp_path) as client:
        monkeypatch.setenv("ACCORD_CONTROLLER_PREFERENCE_ADDRESS", client.addresses["preference"])
        async with controller_here(tmp_path):
            await judge(client, ("ann", "bob"), 3)
            snapshot = await client.preferences.create_snapshot(preference_v1.SNAPSHOT_KIND_PREFERENCES)
            ran = await accord_command(tmp_path, "annotators", "exclude", "bob", "-r", "chance")
            assert (ran.code, "3 judgements are left out of new snapshots" in ran.err) == (0, True), ran.err
            listed = json.loads((await accord_command(tmp_path, "annotators", "list", "-f", "json")).out)
            assert [(one["annotator_id"], one["state"], one["reason"]) for one in listed] == [
                ("ann", "active", ""),
                ("bob", "excluded", "chance"),
            ]
            gone = json.loads((await accord_command(tmp_path, "annotators", "withdraw", "bob", "-f", "json")).out)
            assert [use["digest"] for use in gone["snapshots"]] == [snapshot.digest]
            assert gone["retrain"] == []
            again = await accord_command(tmp_path, "annotators", "reinstate", "bob")
            assert (again.code, "has withdrawn, and this cannot be undone" in again.err) == (1, True)
            traced = json.loads((await accord_command(tmp_path, "trace", "annotator", "bob", "-f", "json")).out)
            assert [(use["digest"], use["records"]) for use in traced["snapshots"]] == [(snapshot.digest, 3)]
            told = await accord_command(tmp_path, "trace", "snapshot", snapshot.digest, "-f", "json")
            origins = json.loads(told.out)
            assert {one["annotator_id"] for one in origins["annotators"]} == {"ann", "bob"}
            unknown = await accord_command(tmp_path, "trace", "model", "nothing-1")
            assert (unknown.code, "No model named nothing-1" in unknown.err) == (1, True)


async def test_an_answer_is_traced_to_the_engine_that_drew_it(tmp_path: Path) -> None:
    async with preference_service(tmp_path) as client:
        prompt = types_v1.Conversation(messages=[types_v1.ChatMessage(role="user", content="Question?")])
        [made] = await client.preferences.create_prompts([preference_v1.Prompt(conversation=prompt)])
        origin = preference_v1.CompletionOrigin(run_id="r", iteration=1, weights_digest="d" * 64, engine="vllm")
        answer = preference_v1.Completion(prompt_id=made.prompt_id, text="Yes.", origin=origin)
        [kept] = await client.preferences.create_completions([answer])
        async with controller_here(tmp_path):
            told = await accord_command(tmp_path, "trace", "answer", kept.completion_id)
            assert "on the engine vllm" in " ".join(told.out.split()), told.err
            found = json.loads(
                (await accord_command(tmp_path, "trace", "answer", kept.completion_id, "-f", "json")).out
            )
            assert (found["engine"], found["run_id"]) == ("vllm", "r")
