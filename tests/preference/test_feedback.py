"""Prompts, answers and judgements: ids from content, all or none, wrong ones named, repeats that do nothing twice."""

from __future__ import annotations

import math

import pytest
from tests.support.preference_service import ServedPreferences, conversation, pair, person

from accord.errors import AccordError, AlreadyExists, InvalidArgument, NotFound
from accord.preference import v1 as preference_v1
from accord.types import v1 as types_v1
from accord_preference.domain import canonical

pytestmark = pytest.mark.process


async def test_same_conversation_is_same_prompt_and_first_source_stays(service: ServedPreferences) -> None:
    first = await service.prompt("hello", "one")
    again = await service.prompt("hello", "two")
    assert again == first
    assert first.source == "one"
    assert (await service.stats()).prompts == 1


async def test_prompts_page_in_order_of_id_without_gaps(service: ServedPreferences) -> None:
    made = {prompt.prompt_id for prompt in await service.prompts(f"p{number}" for number in range(25))}
    seen: list[str] = []
    token, pages = "", 0
    while True:
        page = await service.stub.ListPrompts(
            preference_v1.ListPromptsRequest(page_size=10, page_token=token), timeout=10
        )
        seen += [prompt.prompt_id for prompt in page.prompts]
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
    assert seen == sorted(made)
    assert pages == 3


@pytest.mark.parametrize("token", ["nonsense", "W10=", "WyJ4IiwgMV0="])
async def test_foreign_page_token_is_refused(service: ServedPreferences, token: str) -> None:
    await service.prompt("hello")
    with pytest.raises(InvalidArgument) as caught:
        await service.stub.ListPrompts(preference_v1.ListPromptsRequest(page_token=token), timeout=10)
    assert caught.value.violations[0].field == "page_token"


async def test_token_of_another_filter_is_refused(service: ServedPreferences) -> None:
    await service.prompts(["a", "b"], "s")
    page = await service.stub.ListPrompts(preference_v1.ListPromptsRequest(page_size=1), timeout=10)
    with pytest.raises(InvalidArgument):
        await service.stub.ListPrompts(
            preference_v1.ListPromptsRequest(page_size=1, page_token=page.next_page_token, source="s"), timeout=10
        )


async def test_prompt_batch_with_wrong_role_keeps_nothing(service: ServedPreferences) -> None:
    wrong = types_v1.Conversation(messages=[types_v1.ChatMessage(role="robot", content="x")])
    prompts = [preference_v1.Prompt(conversation=conversation("fine")), preference_v1.Prompt(conversation=wrong)]
    with pytest.raises(InvalidArgument) as caught:
        await service.stub.CreatePrompts(
            preference_v1.CreatePromptsRequest(request_id="r", prompts=prompts), timeout=10
        )
    assert caught.value.violations[0].field == "prompts[1].conversation.messages[0].role"
    assert (await service.stats()).prompts == 0


async def test_completion_of_unknown_prompt_is_named_and_batch_dropped(service: ServedPreferences) -> None:
    prompt = await service.prompt("hello")
    batch = [
        preference_v1.Completion(prompt_id=prompt.prompt_id, text="fine"),
        preference_v1.Completion(prompt_id="gone", text="lost"),
    ]
    with pytest.raises(NotFound, match=r"completions\[1\].prompt_id.*'gone'"):
        await service.stub.CreateCompletions(
            preference_v1.CreateCompletionsRequest(request_id="r", completions=batch), timeout=10
        )
    assert (await service.stats()).completions == 0


async def test_completion_keeps_empty_text_and_whole_origin(service: ServedPreferences) -> None:
    prompt = await service.prompt("hello")
    origin = preference_v1.CompletionOrigin(
        run_id="r", iteration=2, weights_version=7, weights_digest="d", seed=2**64 - 1
    )
    request = preference_v1.CreateCompletionsRequest(
        request_id="r",
        completions=[
            preference_v1.Completion(prompt_id=prompt.prompt_id, text="", origin=origin),
            preference_v1.Completion(prompt_id=prompt.prompt_id, text=""),
        ],
    )
    made = (await service.stub.CreateCompletions(request, timeout=10)).completions
    assert made[0].origin == origin
    assert made[0].completion_id != made[1].completion_id
    assert not made[1].HasField("origin")


async def test_the_engine_is_part_of_an_answers_origin_and_answers_without_one_keep_their_ids(
    service: ServedPreferences,
) -> None:
    origin = preference_v1.CompletionOrigin(
        run_id="r", iteration=2, weights_version=7, weights_digest="d", seed=2**64 - 1
    )
    before = canonical.completion_id("p", "", canonical.canonical_json(canonical.origin_value(origin)))
    assert before == "e2405839d6e01155340c13b629942ec58b18f6e0cc55c6d8ebd1aef6e4f7b88d", (
        "as before engines were recorded"
    )
    prompt = await service.prompt("hello")
    request = preference_v1.CreateCompletionsRequest(request_id="r")
    for engine in ("", "transformers", "vllm"):
        origin.engine = engine
        request.completions.add(prompt_id=prompt.prompt_id, text="the same", origin=origin)
    made = (await service.stub.CreateCompletions(request, timeout=10)).completions
    assert [answer.origin.engine for answer in made] == ["", "transformers", "vllm"]
    assert len({answer.completion_id for answer in made}) == 3


async def test_an_answer_of_ten_megabytes_is_refused_by_its_field_and_the_others_are_not_kept(
    service: ServedPreferences,
) -> None:
    prompt = await service.prompt("hello")
    with pytest.raises(InvalidArgument) as caught:
        await service.answers(prompt, "short", "b" * 10_000_000)
    assert (caught.value.reason, caught.value.violations[0].field) == ("TEXT_TOO_LONG", "completions[1].text")
    with pytest.raises(InvalidArgument) as caught:
        await service.prompt("é" * 5_000_000)
    assert caught.value.reason == "TEXT_TOO_LONG"
    stats = await service.stats()
    assert (stats.prompts, stats.completions) == (1, 0)


Wrong = dict[str, preference_v1.Comparison | preference_v1.Ranking | preference_v1.Rating]


def _wrong(one: str, two: str, foreign: str) -> dict[str, tuple[Wrong, str, type[AccordError]]]:
    """Case -> (judgement, field that is wrong, error)."""

    def ranking(*ranks: list[str]) -> Wrong:
        return {"ranking": preference_v1.Ranking(ranks=[preference_v1.Rank(completion_ids=rank) for rank in ranks])}

    def comparison(chosen: str, rejected: str, **more: float | bool) -> Wrong:
        return {"comparison": preference_v1.Comparison(chosen_id=chosen, rejected_id=rejected, **more)}  # type: ignore[arg-type]

    def rating(value: float, **more: float) -> Wrong:
        return {"rating": preference_v1.Rating(completion_id=one, value=value, **more)}

    return {
        "itself": (comparison(one, one), "feedback.comparison.rejected_id", InvalidArgument),
        "unknown": (comparison(one, "gone"), "feedback.comparison.rejected_id", NotFound),
        "other prompt": (comparison(foreign, one), "feedback.comparison.chosen_id", InvalidArgument),
        "negative margin": (comparison(one, two, margin=-1.0), "feedback.comparison.margin", InvalidArgument),
        "nan margin": (comparison(one, two, margin=math.nan), "feedback.comparison.margin", InvalidArgument),
        "margin of a tie": (comparison(one, two, margin=1.0, tie=True), "feedback.comparison.margin", InvalidArgument),
        "ranked twice": (ranking([one], [two, one]), "feedback.ranking.ranks[1].completion_ids[1]", InvalidArgument),
        "ranks one": (ranking([one]), "feedback.ranking.ranks", InvalidArgument),
        "nan": (rating(math.nan), "feedback.rating.value", InvalidArgument),
        "infinite": (rating(1, max=math.inf), "feedback.rating.max", InvalidArgument),
        "off the scale": (rating(6, min=1, max=5), "feedback.rating.value", InvalidArgument),
        "off the usual scale": (rating(1.5), "feedback.rating.value", InvalidArgument),
        "empty scale": (rating(1, min=1, max=1), "feedback.rating.max", InvalidArgument),
        "nothing": ({}, "feedback.judgement", InvalidArgument),
    }


@pytest.mark.parametrize("case", _wrong("", "", ""))
async def test_wrong_judgement_is_refused_with_its_field(service: ServedPreferences, case: str) -> None:
    prompt = await service.prompt("hello")
    one, two = await service.answers(prompt, "one", "two")
    (foreign,) = await service.answers(await service.prompt("other"), "foreign")
    judgement, field, error = _wrong(one, two, foreign)[case]
    with pytest.raises(error) as caught:
        await service.submit(
            preference_v1.Feedback(prompt_id=prompt.prompt_id, annotator=person("ann"), **judgement)  # type: ignore[arg-type]
        )
    assert field in caught.value.message
    if error is InvalidArgument:
        assert [violation.field for violation in caught.value.violations] == [field]
    assert not (await service.stats()).feedback


async def test_every_kind_of_judgement_comes_back_from_a_snapshot(service: ServedPreferences) -> None:
    prompt = await service.prompt("hello", "set")
    one, two, three = await service.answers(prompt, "one", "two", "three")
    sent = [
        preference_v1.Feedback(comparison=preference_v1.Comparison(chosen_id=two, rejected_id=one, margin=0.5)),
        preference_v1.Feedback(
            ranking=preference_v1.Ranking(
                ranks=[
                    preference_v1.Rank(completion_ids=[three]),
                    preference_v1.Rank(completion_ids=sorted([one, two])),
                ]
            )
        ),
        preference_v1.Feedback(
            rating=preference_v1.Rating(completion_id=one, value=4, min=1, max=5, criterion="helpful")
        ),
    ]
    for feedback in sent:
        feedback.prompt_id = prompt.prompt_id
        feedback.annotator.CopyFrom(person("ann"))
        await service.submit(feedback)
    records = await service.export((await service.snapshot()).digest)
    found = {record.feedback.WhichOneof("judgement"): record for record in records}
    assert found["comparison"].feedback.comparison == sent[0].comparison
    assert [answer.text for answer in found["comparison"].completions] == ["two", "one"]
    assert found["ranking"].feedback.ranking == sent[1].ranking
    assert found["rating"].feedback.rating == sent[2].rating
    stats = await service.stats()
    assert (stats.comparisons, stats.rankings, stats.ratings) == (1, 1, 1)
    assert [(row.source, row.count) for row in stats.feedback] == [("set", 3)]


async def test_repeated_request_does_nothing_twice_also_after_restart(service: ServedPreferences) -> None:
    await service.task("hello", queue="q")
    request = preference_v1.LeaseTaskRequest(request_id="mine", annotator=person("ann"), queue="q")
    first = await service.stub.LeaseTask(request, timeout=10)
    imported = await service.load([pair(number) for number in range(3)], name="import")
    await service.stop()
    await service.start()
    assert await service.stub.LeaseTask(request, timeout=10) == first
    assert await service.load([pair(number) for number in range(3)], name="import", size=1) == imported
    assert imported.feedback == 3
    assert (await service.stats()).comparisons == 3


async def test_request_id_with_other_content_is_refused(service: ServedPreferences) -> None:
    request = preference_v1.CreatePromptsRequest(
        request_id="r", prompts=[preference_v1.Prompt(conversation=conversation("a"))]
    )
    await service.stub.CreatePrompts(request, timeout=10)
    request.prompts[0].source = "changed"
    with pytest.raises(AlreadyExists) as caught:
        await service.stub.CreatePrompts(request, timeout=10)
    assert caught.value.reason == "REQUEST_ID_REUSED"
