"""Random choices depend on the seed and on what is chosen, on nothing else."""

from __future__ import annotations

import random

from accord.preference import v1 as preference_v1
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_controller.stages.preference_examples import batches, content, to_examples, to_judged
from accord_controller.stages.seeds import seed_for, shuffled, turn

NAMES = [f"prompt-{number}" for number in range(10)]


def same(name: str) -> str:
    return name


def test_seeds_differ_in_every_part_and_stay_the_same_over_versions() -> None:
    parts = [(7,), (8,), (7, 1), (7, 1, 2), (7, 12), (7, "policy", 1), (7, "policy", 2)]
    assert len({seed_for(*part) for part in parts}) == len(parts)
    assert all(0 <= seed_for(*part) < 2**64 for part in parts)
    # A change here would make recorded deterministic runs come out differently.
    assert seed_for(7, "policy", 1, 2, "p") == 8850668054195188795


def test_a_shuffle_does_not_depend_on_the_order_that_items_come_in() -> None:
    other = NAMES[:]
    random.Random(0).shuffle(other)
    assert shuffled(NAMES, same, 3, "x") == shuffled(other, same, 3, "x")
    assert shuffled(NAMES, same, 3, "x") != shuffled(NAMES, same, 4, "x")


def test_turns_take_everything_once_before_anything_twice() -> None:
    taken = [name for number in range(10) for name in turn(NAMES, same, 3, number, 7, "policy", 1)]
    assert sorted(taken[:10]) == NAMES
    assert sorted(taken[10:20]) == NAMES
    assert taken[:10] != taken[10:20]


def test_a_turn_larger_than_what_there_is_goes_round() -> None:
    taken = turn(NAMES[:2], same, 5, 0, 7, "policy", 1)
    assert [taken.count(name) for name in NAMES[:2]] in ([2, 3], [3, 2])


def record(prompt: str, better: str, worse: str, annotator: str) -> preference_v1.Record:
    made = preference_v1.Record(
        prompt=preference_v1.Prompt(
            prompt_id=prompt,
            conversation=types_v1.Conversation(messages=[types_v1.ChatMessage(role="user", content=prompt)]),
        ),
        completions=[
            preference_v1.Completion(completion_id=f"{annotator}-1", text=better),
            preference_v1.Completion(completion_id=f"{annotator}-2", text=worse),
        ],
    )
    made.feedback.annotator.annotator_id = annotator
    made.feedback.annotator.kind = preference_v1.ANNOTATOR_KIND_SIMULATED
    made.feedback.comparison.chosen_id, made.feedback.comparison.rejected_id = f"{annotator}-1", f"{annotator}-2"
    return made


def test_what_is_learnt_does_not_depend_on_who_judged_or_in_which_order() -> None:
    one = [record(f"q{number}", "yes", "no", f"a{number % 3}") for number in range(9)]
    two = [record(f"q{number}", "yes", "no", f"b{number % 2}") for number in reversed(range(9))]
    assert to_examples(one) == to_examples(two)
    assert {example.annotator for example in to_judged(one)} == {"a0", "a1", "a2"}


def test_every_epoch_goes_through_all_examples_once_in_another_order() -> None:
    examples = to_examples(record(f"q{number}", "yes", "no", "a") for number in range(10))
    made = batches(examples, epochs=2, size=4, seed=1)
    assert [len(batch) for batch in made] == [4, 4, 2, 4, 4, 2]
    first = [content(example) for batch in made[:3] for example in batch]
    second = [content(example) for batch in made[3:] for example in batch]
    assert sorted(first) == sorted(second) == sorted(map(content, examples))
    assert first != second
    assert batches(examples, epochs=2, size=4, seed=1) == made


def test_feedback_becomes_what_it_says() -> None:
    pair = to_examples([record("q", "yes", "no", "a")])[0]
    assert (list(pair.responses), list(pair.ranks.values), pair.source) == (["yes", "no"], [0, 1], "simulated")
    tie = record("q", "yes", "no", "a")
    tie.feedback.comparison.tie, tie.feedback.comparison.margin = True, 2.0
    tied = to_examples([tie])[0]
    assert list(tied.ranks.values) == [0, 0]
    assert not tied.HasField("margin")
    rated = record("q", "yes", "no", "a")
    rated.feedback.rating.completion_id, rated.feedback.rating.value = "a-1", 4.0
    rated.feedback.rating.min, rated.feedback.rating.max = 1.0, 5.0
    assert to_examples([rated])[0] == trainer_v1.PreferenceExample(
        prompt=rated.prompt.conversation,
        responses=["yes"],
        ratings=trainer_v1.Ratings(values=[0.75]),
        source="simulated",
    )
    ranked = record("q", "yes", "no", "a")
    ranked.completions.add(completion_id="a-3", text="maybe")
    ranked.feedback.ranking.ranks.add(completion_ids=["a-3"])
    ranked.feedback.ranking.ranks.add(completion_ids=["a-1", "a-2"])
    assert not to_examples([ranked])[0].truncated
    ranked.completions[1].finish_reason = types_v1.FINISH_REASON_LENGTH
    ranked.completions[2].finish_reason = types_v1.FINISH_REASON_STOP
    example = to_examples([ranked])[0]
    assert list(zip(example.responses, example.truncated, strict=True)) == [("maybe", 0), ("yes", 0), ("no", 1)]
    assert list(zip(example.responses, example.ranks.values, strict=True)) == [("maybe", 0), ("yes", 1), ("no", 1)]
