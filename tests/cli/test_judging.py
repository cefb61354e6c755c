"""What an annotator's input means."""

from __future__ import annotations

import pytest

from accord.cli.annotate import answers

SHOWN = ["x", "y", "z", "w"]


def test_the_key_names_the_answer_as_shown() -> None:
    first, second = answers.comparison(["x", "y"], "1"), answers.comparison(["x", "y"], "2")
    assert (first.chosen_id, first.rejected_id, first.tie) == ("x", "y", False)
    assert (second.chosen_id, second.rejected_id, second.tie) == ("y", "x", False)
    assert answers.comparison(["x", "y"], "t").tie


@pytest.mark.parametrize(
    ("line", "ranks"),
    [
        ("2 1 3 4", [["y"], ["x"], ["z"], ["w"]]),
        ("2 > 1 = 3 > 4", [["y"], ["x", "z"], ["w"]]),
        ("4,3,2=1", [["w"], ["z"], ["y", "x"]]),
    ],
)
def test_a_line_ranks_the_answers_as_shown(line: str, ranks: list[list[str]]) -> None:
    assert [list(rank.completion_ids) for rank in answers.ranking(SHOWN, line).ranks] == ranks


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 2 3", "answer 4 is missing"),
        ("1 2 3 3 4", "answer 3 is given twice"),
        ("1 2 3 5", "'5' is not one of"),
        ("1 2 3 four", "'four' is not one of"),
        ("1 2 3 =4=", "'' is not one of"),
        ("", "answer 1 is missing"),
    ],
)
def test_a_wrong_ranking_is_explained(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        answers.ranking(SHOWN, line)


def test_a_rating_is_kept_with_its_scale() -> None:
    rating = answers.rating("x", "4,5")
    assert (rating.completion_id, rating.value, rating.min, rating.max) == ("x", 4.5, 1, 5)
    for line in ("0", "6", "nan", "good", ""):
        with pytest.raises(ValueError, match="number"):
            answers.rating("x", line)
