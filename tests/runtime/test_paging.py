"""Page tokens: each fits one list, those of 0.1.0 are still read, and a malformed one is the caller's error."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from tests.support.controller import controller_client

from accord.channel import open_channel
from accord.controller import v1 as controller_v1
from accord.errors import InvalidArgument
from accord.preference import v1 as preference_v1
from accord_runtime.serving.paging import read_page


def request(token: str = "", size: int = 0) -> preference_v1.ListAnnotatorsRequest:
    return preference_v1.ListAnnotatorsRequest(page_size=size, page_token=token)


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize(("asked", "size"), [(0, 100), (1, 1), (1000, 1000), (2**31 - 1, 1000)])
def test_a_page_holds_what_was_asked_for_within_its_limits(asked: int, size: int) -> None:
    assert read_page(request(size=asked), 0, "flags").size == size


def test_pages_follow_one_another_to_the_end() -> None:
    entries, seen, token = list(range(1, 8)), list[int](), ""
    for _ in range(3):
        page = read_page(request(token, size=3), 0, "numbers")
        found = [entry for entry in entries if entry > page.after][: page.size + 1]
        rows, token = page.cut(found, lambda row: row)
        seen += rows
    assert seen == entries
    assert token == ""


def test_a_token_of_another_list_is_refused() -> None:
    token = read_page(request(), 0, "flags", "q").token(5)
    assert read_page(request(token), 0, "flags", "q").after == 5
    with pytest.raises(InvalidArgument, match="another list"):
        read_page(request(token), 0, "flags", "other")


def test_tokens_of_0_1_0_are_read() -> None:
    flags = "WyJkMTE5ZTlkOWNkMTg4MDZhIiwgN10="
    assert read_page(request(flags), 0, "flags", "q").after == 7
    assert read_page(request("42"), 0, "runs", plain_numbers=True).after == 42


def test_only_the_controllers_lists_read_plain_numbers() -> None:
    with pytest.raises(InvalidArgument, match="not made by this service"):
        read_page(request("42"), 0, "flags", "q")


@pytest.mark.parametrize("start", ["", 0, ["", 0]], ids=["text", "number", "list"])
@pytest.mark.parametrize(
    "token",
    [
        "no token",
        "é",
        "1" * 5000,
        str(2**63),
        "-1",
        encoded("1" * 5000),
        encoded("[" * 100_000),
        encoded("{}"),
        encoded("[]"),
        encoded('["LIST"]'),
        encoded('["LIST", null]'),
        encoded('["LIST", true]'),
        encoded('["LIST", 1.5]'),
        encoded(f'["LIST", {2**63}]'),
        encoded(f'["LIST", {"1" * 5000}]'),
        encoded('["LIST", []]'),
        encoded('["LIST", ["a"]]'),
        encoded('["LIST", [0, "a"]]'),
        encoded(f'["LIST", ["a", {2**64}]]'),
        encoded('["LIST", ["a", 1, 2]]'),
        encoded('["LIST", {"a": 1}]'),
        encoded('["LIST", 1, 2]'),
        encoded(r'["LIST", "\ud800"]'),
        encoded(r'["LIST", ["a\u0000", 1]]'),
        encoded("\x00\udcff".encode("utf-8", "surrogatepass").decode("latin-1")),
    ],
)
def test_a_malformed_token_is_an_invalid_argument(token: str, start: Any) -> None:
    if "LIST" in (plain := _decoded(token)):
        kept = _decoded(read_page(request(), start, "list").token(start)).split('"')[1]
        token = encoded(plain.replace("LIST", kept))
    with pytest.raises(InvalidArgument) as refused:
        read_page(request(token), start, "list")
    assert refused.value.reason == "INVALID_ARGUMENT"
    assert refused.value.violations[0].field == "page_token"


def _decoded(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token.encode()).decode()
    except ValueError:
        return ""


@pytest.mark.parametrize("token", ["x", "9" * 30, encoded('["a", 1]')])
async def test_the_controller_refuses_a_malformed_token(tmp_path: Path, token: str) -> None:
    async with (
        controller_client(tmp_path) as client,
        open_channel(client.addresses["controller"]) as channel,
    ):
        runs, models = controller_v1.RunServiceStub(channel), controller_v1.ModelServiceStub(channel)
        with pytest.raises(InvalidArgument):
            await runs.ListRuns(controller_v1.ListRunsRequest(page_token=token))
        with pytest.raises(InvalidArgument):
            await models.ListModels(controller_v1.ListModelsRequest(page_token=token))
