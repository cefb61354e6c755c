"""An OpenAI-compatible endpoint that judges by a rule, for tests: a real HTTP server on a free port of this process."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

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
