"""What an annotator's form means, and how sure a win rate is."""

from __future__ import annotations

import pytest

from accord.errors import InvalidArgument
from accord.preference import v1 as preference_v1
from accord_console.annotation import form_parsing
from accord_console.annotation.task_page import Slip
from accord_console.comparisons.comparisons import Comparison, standing
from accord_console.comparisons.statistics import wilson

SHOWN = ("a", "b", "c", "d")


@pytest.mark.parametrize(("choice", "chosen", "tie"), [("0", "a", False), ("1", "b", False), ("tie", "a", True)])
def test_a_choice_is_by_the_place_on_the_page(choice: str, chosen: str, tie: bool) -> None:
    found = form_parsing.comparison(("a", "b"), choice)
    assert (found.chosen_id, found.tie) == (chosen, tie)


@pytest.mark.parametrize("choice", ["", "2", "-1", "a", "b"])
def test_no_choice_is_refused(choice: str) -> None:
    with pytest.raises(InvalidArgument, match="choose an answer"):
        form_parsing.comparison(("a", "b"), choice)


def test_a_ranking_keeps_order_and_ties() -> None:
    found = form_parsing.ranking(SHOWN, "2 0=1 3")
    assert [list(rank.completion_ids) for rank in found.ranks] == [["c"], ["a", "b"], ["d"]]


@pytest.mark.parametrize("ranks", ["", "0 1 2", "0 1 2 2", "0 1 2 3 4", "0 1 2 x", "0==1 2 3", "0 1 2 -1"])
def test_half_a_ranking_is_refused(ranks: str) -> None:
    with pytest.raises(InvalidArgument, match="every answer exactly once"):
        form_parsing.ranking(SHOWN, ranks)


@pytest.mark.parametrize("value", ["", "0", "6", "nan", "inf", "x"])
def test_a_rating_off_the_scale_is_refused(value: str) -> None:
    with pytest.raises(InvalidArgument, match="from 1 to 5"):
        form_parsing.rating("a", value)


def test_criteria_are_rated_answer_by_answer_and_may_stay_open() -> None:
    slip = Slip("i", "l", "t", "p", "comparison", ["a", "b"], [("helpful", 1, 5), ("harmless", 0, 1)])
    found = form_parsing.criteria(slip, {"rate-0-0": "4", "rate-1-1": "0.5", "rate-0-1": ""})
    assert [(one.completion_id, one.criterion, one.value, one.max) for one in found] == [
        ("a", "helpful", 4, 5),
        ("b", "harmless", 0.5, 1),
    ]
    with pytest.raises(InvalidArgument, match="from 0 to 1"):
        form_parsing.criteria(slip, {"rate-0-1": "2"})


@pytest.mark.parametrize(
    # Golden: Newcombe, Statistics in Medicine 17 (1998), table I, Wilson's score without continuity correction.
    ("successes", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_newcombes(successes: int, total: int, low: float, high: float) -> None:
    assert wilson(successes, total) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("successes", "total"), [(1, 0), (-1, 5), (6, 5)])
def test_no_share_has_no_interval(successes: int, total: int) -> None:
    with pytest.raises(ValueError, match="not a share"):
        wilson(successes, total)


def record(
    chosen: str, rejected: str, *, tie: bool = False, kind: int = preference_v1.ANNOTATOR_KIND_HUMAN
) -> preference_v1.Record:
    """A verdict between answers whose ids are `<policy>-<prompt>`."""
    found = preference_v1.Record()
    found.prompt.prompt_id = chosen.partition("-")[2]
    for name in (chosen, rejected):
        found.completions.add(completion_id=name).origin.weights_digest = name.partition("-")[0]
    found.feedback.annotator.kind = preference_v1.AnnotatorKind.ValueType(kind)
    found.feedback.comparison.CopyFrom(preference_v1.Comparison(chosen_id=chosen, rejected_id=rejected, tie=tie))
    return found


ASKED = Comparison("1", "one", "two", "new", "old", 4, 1, 32, 0.7, 0.0)


def test_a_win_rate_counts_ties_half_and_other_policies_not_at_all() -> None:
    records = [
        record("new-1", "old-1"),
        record("new-2", "old-2"),
        record("old-3", "new-3"),
        record("old-4", "new-4", tie=True),
    ]
    found = standing(ASKED, [*records, record("new-5", "other-5"), preference_v1.Record()])
    assert (found.wins, found.losses, found.ties, found.rate) == (2, 1, 1, 0.625)
    assert found.interval == wilson(2.5, 4)
    assert standing(ASKED, []).rate is None
    assert standing(ASKED, []).interval is None


def test_a_win_rate_is_what_people_say_and_no_model() -> None:
    judge = record("old-1", "new-1", kind=preference_v1.ANNOTATOR_KIND_MODEL)
    found = standing(ASKED, [record("new-1", "old-1"), judge])
    assert (found.wins, found.losses, found.rate) == (1, 0, 1.0)


def test_several_people_on_one_pair_make_a_win_rate_no_surer_than_one_pair_can() -> None:
    alike = [record(f"new-{number}", f"old-{number}") for number in range(8) for _ in range(5)]
    split = [record("old-8", "new-8"), record("new-8", "old-8")]
    found = standing(ASKED, [*alike, *split])
    assert (found.wins, found.losses) == (41, 1)
    assert found.rate == pytest.approx(8.5 / 9)
    assert found.interval == wilson(8.5, 9)
