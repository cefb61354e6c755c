"""`python:` scorers: every signature, their failures, and who may not run code."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.reward import item, reward_client, scorer, values

from accord.errors import InvalidArgument, PermissionDenied
from accord_reward.settings import RewardSettings

ITEMS = [item("one", "a"), item("two", "bb"), item("three", "ccc")]
NAME = "python:./reward.py:score"


@pytest.mark.parametrize(
    "source",
    [
        "def score(prompt, response):\n    assert prompt[0]['role'] == 'user'\n    return len(response)",
        "async def score(prompt, response):\n    return len(response)",
        "def score(prompts, responses):\n    return [len(response) for response in responses]",
        "async def score(prompts, responses):\n    return [len(response) for response in responses]",
        "import numpy\ndef score(prompts, responses):\n    return numpy.array([len(r) for r in responses])",
    ],
    ids=["plain", "async", "batch", "async batch", "numpy batch"],
)
async def test_each_signature_is_called_as_it_is_written(tmp_path: Path, source: str) -> None:
    (tmp_path / "reward.py").write_text(source + "\n")
    async with reward_client(tmp_path) as client:
        assert values(await client.reward.score(ITEMS, scorers=[scorer(NAME)])) == [1, 2, 3]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return float('nan')", "nan"),
        ("return float('-inf')", "-inf"),
        ("return None", "NoneType"),
        ("return '1'", "str"),
        ("raise KeyError('gone')", "KeyError"),
        ("raise SystemExit(3)", "exit"),
    ],
)
async def test_what_is_no_finite_number_is_a_failure_and_no_zero(tmp_path: Path, body: str, said: str) -> None:
    (tmp_path / "reward.py").write_text(
        f"def score(prompt, response):\n    if response == 'bb':\n        {body}\n    return 1\n"
    )
    async with reward_client(tmp_path) as client:
        results = await client.reward.score(ITEMS, scorers=[scorer(NAME)])
    assert [result.WhichOneof("result") for result in results] == ["score", "failure", "score"]
    assert results[1].failure.reason == "SCORER_FAILED"
    assert results[1].failure.message.startswith(f"scorer {NAME} ")
    assert said in results[1].failure.message


async def test_a_batch_function_that_raises_fails_only_the_items_at_fault(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text(
        "def score(prompts, responses):\n    return [10 // (len(response) - 2) for response in responses]\n"
    )
    async with reward_client(tmp_path) as client:
        results = await client.reward.score(ITEMS, scorers=[scorer(NAME)])
    assert [result.WhichOneof("result") for result in results] == ["score", "failure", "score"]


async def test_a_batch_function_that_returns_too_few_fails_and_shifts_no_scores(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text("def score(prompts, responses):\n    return []\n")
    async with reward_client(tmp_path) as client:
        results = await client.reward.score(ITEMS, scorers=[scorer(NAME)])
    assert all("0 scores for 1 items" in result.failure.message for result in results)


async def test_keyword_parameters_are_the_options(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text(
        "def score(prompt, response, *, word, times=1):\n    return times * (word in response)\n"
    )
    async with reward_client(tmp_path) as client:
        given = scorer(NAME, {"word": "b", "times": 4})
        assert values(await client.reward.score(ITEMS, scorers=[given])) == [0, 4, 0]
        with pytest.raises(InvalidArgument) as missing:
            await client.reward.score(ITEMS, scorers=[scorer(NAME)])
    assert [violation.field for violation in missing.value.violations] == ["scorers[0].options.word"]


async def test_an_edited_file_counts_from_the_next_call_on(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text("def score(prompt, response):\n    return 1\n")
    async with reward_client(tmp_path) as client:
        before = values(await client.reward.score(ITEMS, scorers=[scorer(NAME)]))
        (tmp_path / "reward.py").write_text("def score(prompt, response):\n    return 2\n")
        after = values(await client.reward.score(ITEMS, scorers=[scorer(NAME)]))
    assert (before, after) == ([1, 1, 1], [2, 2, 2])


@pytest.mark.parametrize(
    ("name", "source", "reason", "said"),
    [
        ("python:./missing.py:score", "", "UNKNOWN_SCORER", "does not exist"),
        ("python:../reward.py:score", "", "UNKNOWN_SCORER", "outside"),
        ("python:/etc/hostname:score", "", "UNKNOWN_SCORER", "outside"),
        (NAME, "import no_such_module_here", "SCORER_BROKEN", "no_such_module_here"),
        (NAME, "def other(prompt, response):\n    return 1", "SCORER_BROKEN", "available: other"),
        (NAME, "def score(text):\n    return 1", "SCORER_BROKEN", "must take"),
        (NAME, "def score(:", "SCORER_BROKEN", "SyntaxError"),
        (NAME, "raise SystemExit", "SCORER_BROKEN", "SystemExit"),
    ],
)
async def test_what_cannot_be_loaded_says_why(tmp_path: Path, name: str, source: str, reason: str, said: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for folder in (root, tmp_path):
        (folder / "reward.py").write_text(source + "\n")
    async with reward_client(root) as client:
        with pytest.raises(InvalidArgument, match=said) as refused:
            await client.reward.score(ITEMS, scorers=[scorer(name)])
    assert refused.value.reason == reason
    assert [violation.field for violation in refused.value.violations] == ["scorers[0].name"]


async def test_code_is_refused_where_it_is_not_allowed(tmp_path: Path) -> None:
    proof = tmp_path / "it_ran"
    (tmp_path / "reward.py").write_text(f"open({str(proof)!r}, 'w')\ndef score(prompt, response):\n    return 1\n")
    async with reward_client(tmp_path, allow_python=False) as client:
        with pytest.raises(PermissionDenied, match="--allow-python") as refused:
            await client.reward.score(ITEMS, scorers=[scorer(NAME)])
        listed = [info.name for info in (await client.reward.scorers()).scorers]
    assert refused.value.reason == "PYTHON_NOT_ALLOWED"
    assert not proof.exists()
    assert not any(name.startswith("python:") for name in listed)


def test_code_is_allowed_on_loopback_and_elsewhere_only_when_configured() -> None:
    def allowed(**settings: object) -> bool:
        return RewardSettings(**settings).python_allowed  # type: ignore[arg-type]

    assert allowed()
    assert not allowed(host="0.0.0.0", allow_insecure=True)
    assert allowed(host="0.0.0.0", allow_insecure=True, allow_python=True)
    assert not allowed(allow_python=False)
