"""A language model judges, behind a real HTTP endpoint that answers by a rule: the longer answer is better."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.cli.command import accord_command, preference_service
from tests.cli.test_annotate import add_tasks, stored

from accord.conversations import conversation
from accord.errors import FailedPrecondition, InvalidArgument, Unavailable
from accord.judge.endpoint import Endpoint
from accord.judge.verdict import Unreadable, compare, read
from accord.preference import v1 as preference_v1

ANSWERS = re.compile(r"<answer_A>\n(.*?)\n</answer_A>\n\n<answer_B>\n(.*?)\n</answer_B>", re.DOTALL)


class Peer(ThreadingHTTPServer):
    """An endpoint. `rule`: how it judges; `seen`: what was asked of it; `failures`: answers of 503 still to give."""

    daemon_threads = True
    rule = "longer"
    failures = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Peer

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(asked)
        self.server.keys.append(self.headers.get("Authorization"))
        if self.server.failures:
            self.server.failures -= 1
            self._reply(503, {"error": "busy"})
        elif self.path != "/v1/chat/completions" or asked["model"] != "ruler":
            self._reply(404, {"error": f"no model {asked['model']}"})
        else:
            content = self._judge(asked["messages"][-1]["content"])
            self._reply(200, {"choices": [{"message": {"role": "assistant", "content": content}}]})

    def _judge(self, question: str) -> str:
        found = ANSWERS.search(question)
        assert found is not None
        first, second = found.groups()
        match self.server.rule:
            case "first":
                return "Verdict: A"
            case "mumble" if "Question 1?" in question:
                return "Both have their merits, and who am I to judge."
        return f"A has {len(first)} letters, B {len(second)}.\n**Verdict: {'A' if len(first) > len(second) else 'B'}**"

    def _reply(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def peer(rule: str = "longer") -> Iterator[Peer]:
    server = Peer()
    server.rule = rule
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


async def test_a_judge_works_through_a_queue_and_is_kept_apart_from_people(tmp_path: Path) -> None:
    async with preference_service(tmp_path) as client:
        await add_tasks(client, 3, preference_v1.TASK_KIND_COMPARISON, ("Long enough to win.", "Short."))
        await add_tasks(client, 1, preference_v1.TASK_KIND_RANKING, ("middling one", "the longest of them", "tiny"))
        with peer() as server:
            ran = await accord_command(tmp_path, "annotate", "--judge", server.url, "--model", "ruler", "-q", "q")
        assert (ran.code, "judge-ruler is done: 4 verdicts" in ran.err) == (0, True), ran.err
        # Two orders of each pair: 3 comparisons and the 3 pairs of the ranking.
        assert len(server.seen) == 12
        assert all(asked["temperature"] == 0 for asked in server.seen)
        records = await stored(client)
        texts = {completion.completion_id: completion.text for record in records for completion in record.completions}
        chosen = [record.feedback.comparison for record in records if record.feedback.HasField("comparison")]
        assert {texts[one.chosen_id] for one in chosen} == {"Long enough to win."}
        [ranking] = [record.feedback.ranking for record in records if record.feedback.HasField("ranking")]
        best_first = [texts[name] for rank in ranking.ranks for name in rank.completion_ids]
        assert best_first == ["the longest of them", "middling one", "tiny"]
        assert {record.feedback.annotator.kind for record in records} == {preference_v1.ANNOTATOR_KIND_MODEL}
        kinds = [kind.kind for kind in await client.annotators.quality()]
        assert kinds == [preference_v1.ANNOTATOR_KIND_MODEL]


async def test_a_judge_that_prefers_a_place_says_nothing_but_ties(tmp_path: Path) -> None:
    async with preference_service(tmp_path) as client:
        await add_tasks(client, 2, preference_v1.TASK_KIND_COMPARISON)
        with peer("first") as server:
            await accord_command(tmp_path, "annotate", "--judge", server.url, "--model", "ruler")
        assert [record.feedback.comparison.tie for record in await stored(client)] == [True, True]


async def test_a_reply_that_cannot_be_read_is_a_skip_and_no_data(tmp_path: Path) -> None:
    async with preference_service(tmp_path) as client:
        await add_tasks(client, 3, preference_v1.TASK_KIND_COMPARISON, ("Long enough to win.", "Short."))
        with peer("mumble") as server:
            ran = await accord_command(tmp_path, "annotate", "--judge", server.url, "--model", "ruler")
        assert "2 verdicts saved, 1 tasks without a readable one" in ran.err
        assert len(await stored(client)) == 2
        queue = await client.preferences.queue("q")
        assert (queue.open_tasks, queue.leased_tasks) == (1, 0)


async def test_an_endpoint_that_refuses_keeps_the_task_and_says_why(tmp_path: Path) -> None:
    async with preference_service(tmp_path) as client:
        await add_tasks(client, 1, preference_v1.TASK_KIND_COMPARISON)
        with peer() as server:
            ran = await accord_command(tmp_path, "annotate", "--judge", server.url, "--model", "unknown")
        assert (ran.code, "answered 404" in ran.err) == (1, True)
        assert (await client.preferences.queue("q")).leased_tasks == 0
        assert await stored(client) == []


async def test_a_busy_endpoint_is_asked_again_and_a_dead_one_is_unavailable() -> None:
    with peer() as server:
        server.failures = 2
        endpoint = Endpoint(server.url, "ruler", key="secret")
        assert await compare(endpoint, conversation("Hello?"), "a long one", "short") == 1
        assert set(server.keys) == {"Bearer secret"}
        server.failures = 3
        with pytest.raises(Unavailable) as caught:
            await endpoint.ask("s", "q")
    assert caught.value.reason == "JUDGE_UNREACHABLE"
    with pytest.raises(Unavailable):
        await Endpoint(server.url, "ruler", timeout=1).ask("s", "q")
    with pytest.raises(InvalidArgument, match="http"):
        Endpoint("ftp://x", "ruler")
    with peer() as server, pytest.raises(FailedPrecondition):
        await Endpoint(server.url, "other").ask("s", "q")


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("Verdict: A", "a"),
        ("I first thought Verdict: A, but no.\nVerdict: B", "b"),
        ("**Verdict:** [[B]]", "b"),
        ("verdict - tie", "tie"),
        (" b.", "b"),
    ],
)
def test_the_last_verdict_of_a_reply_counts(reply: str, verdict: str) -> None:
    assert read(reply) == verdict


@pytest.mark.parametrize("reply", ["", "A is nice, B too.", "Verdict: C", "Verdict:", "Answer"])
def test_what_names_no_verdict_is_unreadable(reply: str) -> None:
    with pytest.raises(Unreadable):
        read(reply)
