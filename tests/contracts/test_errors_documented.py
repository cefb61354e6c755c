"""The comment of every RPC lists its errors in one form, and lists none that the code does not know."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from tests.support.contracts import METHODS, ROOT

from proto_comments import COMMON, comments, errors, without_errors

CODE = ("services", "clients/python/accord")


@cache
def _reasons() -> frozenset[str]:
    """Every reason that an error of the services may have."""
    sources = [path.read_text() for folder in CODE for path in sorted((ROOT / folder).rglob("*.py")) if _ours(path)]
    literal = {reason for source in sources for reason in re.findall(r'"([A-Z][A-Z_]+)"', source)}
    unknown = {f"{what.upper()}_NOT_FOUND" for source in sources for what in re.findall(r'not_found\("(\w+)"', source)}
    groups = re.findall(r'\[project\.entry-points\."accord\.(\w+)s"\]', (ROOT / "pyproject.toml").read_text())
    return frozenset(literal | unknown | {f"UNKNOWN_{group.upper()}" for group in groups})


def _ours(path: Path) -> bool:
    return "_pb2" not in path.name and path.parent.name != "v1"


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_every_call_says_what_it_does_and_lists_its_errors(method: MethodDescriptor) -> None:
    comment = comments()[method.full_name]
    listed = errors(comment)
    assert without_errors(comment), "says nothing but its errors"
    assert [code for code in listed if not hasattr(grpc.StatusCode, code)] == []
    named = [reason for reasons in listed.values() for reason in reasons]
    assert len(named) == len(set(named)), "a reason is listed twice"
    assert [reason for reason in named if reason not in _reasons()] == [], "no such reason in the code"
    assert [reason for reason in named if any(reason in reasons for reasons in COMMON.values())] == [], "is common"


def test_the_common_errors_exist() -> None:
    assert [reason for reasons in COMMON.values() for reason in reasons if reason not in _reasons()] == []


@pytest.mark.parametrize(
    "comment",
    [
        "Returns a run.",
        "Returns a run.\n\nErrors: NOT_FOUND.",
        "Returns a run.\n\nErrors: NOT_FOUND (RUN_NOT_FOUND)",
        "Returns a run.\n\nErrors: NOT_FOUND/RUN_NOT_FOUND.",
    ],
)
def test_another_form_is_refused(comment: str) -> None:
    with pytest.raises(ValueError, match="not a list of errors"):
        errors(comment)


def test_the_form_is_read() -> None:
    assert errors("Does it.\n\nErrors: NOT_FOUND (A, B), ABORTED (C).") == {"NOT_FOUND": ("A", "B"), "ABORTED": ("C",)}
    assert errors("Does it.\n\nErrors: common errors only.") == {}
