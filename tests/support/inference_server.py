"""A small real inference server on a free port: vLLM's completions protocol or SGLang's, over a transformers model."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from accord_rollout.engine import Completion, Failed, Finish, Job, Sampling
from accord_rollout.engines.transformers.generation import generate_batch

Answer = tuple[int, dict[str, Any]]


class Model:
    """The active model; one request computes at a time."""

    def __init__(self, folder: Path) -> None:
        self.lock = threading.Lock()
        self.paused = False
        self.version = "default"
        self.load(folder)

    def load(self, folder: Path) -> None:
        self.folder = folder
        self.module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def generate(
        self, ids: list[int], stop: list[int], sampling: Sampling, seed: int, gone: Any
    ) -> Completion | Failed | None:
        """A sample; None when the caller has left."""
        with self.lock:
            job = Job(0, tuple(ids), seed)
            return next(iter(generate_batch(self.module, stop, 0, [job], sampling, gone)), None)

    @torch.no_grad()
    def prompt_logprobs(self, ids: list[int]) -> list[float]:
        """Of the tokens from the second on."""
        logprobs_TV = self.module(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        return [float(logprobs_TV[at, token]) for at, token in enumerate(ids[1:])]


class CompletionsServer:
    """vLLM's completions API. `lacks`: what it leaves out: token_ids, updates, processed_logprobs, logprobs."""

    def __init__(self, folder: Path, lacks: frozenset[str]) -> None:
        self.model, self.started_on, self.lacks = Model(folder), folder, lacks

    def get(self, path: str) -> Answer:
        if path == "/v1/models":
            return 200, {"data": [{"id": "tiny", "root": str(self.started_on), "max_model_len": 256}]}
        if path == "/weight_info" and "updates" not in self.lacks:
            return 200, {"weight_version": self.model.version}
        return 404, {"detail": "Not Found"}

    def post(self, path: str, body: dict[str, Any], gone: Any) -> Answer:
        if path == "/v1/completions":
            return self._complete(body, gone)
        if "updates" in self.lacks:
            return 404, {"detail": "Not Found"}
        match path.partition("?")[0]:
            case "/pause":
                self.model.paused = True
            case "/resume":
                self.model.paused = False
            case "/collective_rpc":
                assert self.model.paused
                assert body["method"] == "reload_weights"
                self.model.load(Path(body["kwargs"]["weights_path"]))
            case "/update_weight_version":
                self.model.version = body["new_version"]
            case "/weight_checker":
                return 200, {"checksums": {"all": str(sum(p.sum().item() for p in self.model.module.parameters()))}}
            case "/reset_prefix_cache":
                return 200, {}
            case _:
                return 404, {"detail": "Not Found"}
        return 200, {}

    def _complete(self, body: dict[str, Any], gone: Any) -> Answer:
        ids = body["prompt"]
        if not isinstance(ids, list):
            return 400, {"error": {"message": "this server takes token ids"}}
        sampling = Sampling(
            body["max_tokens"], body["temperature"], body.get("top_p", 1.0), max(body.get("top_k", 0), 0)
        )
        completion = self.model.generate(ids, body.get("stop_token_ids", []), sampling, body.get("seed", 0), gone)
        if completion is None:
            return 499, {}
        choice: dict[str, Any] = {"index": 0, "text": ""}
        if isinstance(completion, Failed):  # as vLLM writes what is not a number
            completion = Completion(0, (0,), (-9999.0,), Finish.LENGTH)
        logprobs = list(completion.logprobs)
        if "processed_logprobs" in self.lacks and sampling.top_k:
            logprobs = [min(value, -0.5) for value in logprobs]
        choice["finish_reason"] = completion.finish.value
        if "logprobs" not in self.lacks:
            choice["logprobs"] = {"token_logprobs": logprobs}
        if "token_ids" not in self.lacks:
            choice |= {"token_ids": list(completion.response_token_ids), "prompt_token_ids": ids}
        if body.get("prompt_logprobs") is not None:
            values = self.model.prompt_logprobs(ids)
            choice["prompt_logprobs"] = [None] + [
                {str(token): {"logprob": value}} for token, value in zip(ids[1:], values, strict=True)
            ]
        return 200, {"choices": [choice]}


class SGLangServer:
    """SGLang's native API. Its logprobs are those before top_k and top_p."""

    def __init__(self, folder: Path, lacks: frozenset[str]) -> None:
        self.model, self.lacks = Model(folder), lacks

    def get(self, path: str) -> Answer:
        return (200, {"context_length": 256}) if path == "/get_server_info" else (404, {})

    def post(self, path: str, body: dict[str, Any], gone: Any) -> Answer:
        match path:
            case "/generate":
                return self._generate(body, gone)
            case "/pause_generation":
                self.model.paused = True
            case "/continue_generation":
                self.model.paused = False
            case "/update_weights_from_disk":
                assert self.model.paused
                if "updates" in self.lacks:
                    return 200, {"success": False, "message": "the weights do not fit"}
                self.model.load(Path(body["model_path"]))
                return 200, {"success": True, "message": ""}
            case "/flush_cache":
                return 200, {}
            case _:
                return 404, {}
        return 200, {}

    def _generate(self, body: dict[str, Any], gone: Any) -> Answer:
        ids, params = body["input_ids"], body["sampling_params"]
        sampling = Sampling(
            params["max_new_tokens"], params["temperature"], params.get("top_p", 1.0), max(params.get("top_k", 0), 0)
        )
        completion = self.model.generate(
            ids, params.get("stop_token_ids", []), sampling, params.get("sampling_seed", 0), gone
        )
        if completion is None:
            return 499, {}
        if isinstance(completion, Failed):
            completion = Completion(0, (0,), (float("nan"),), Finish.LENGTH)
        meta: dict[str, Any] = {"finish_reason": {"type": completion.finish.value}}
        if "logprobs" not in self.lacks:
            pairs = zip(completion.logprobs, completion.response_token_ids, strict=True)
            meta["output_token_logprobs"] = [[value, token, None] for value, token in pairs]
        if body["logprob_start_len"] == 0:
            values = [None, *self.model.prompt_logprobs(ids)]
            meta["input_token_logprobs"] = [[value, token, None] for value, token in zip(values, ids, strict=True)]
        return 200, {"text": "", "output_ids": list(completion.response_token_ids), "meta_info": meta}


PROTOCOLS = {"openai": CompletionsServer, "sglang": SGLangServer}


@contextmanager
def inference_server(protocol: str, folder: Path, *lacks: str) -> Iterator[str]:
    """Serves the model in `folder`; its URL."""
    served = PROTOCOLS[protocol](folder, frozenset(lacks))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(*served.get(self.path))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            self._answer(*served.post(self.path, body, self._gone))

        def _gone(self) -> bool:
            try:
                return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
            except BlockingIOError:
                return False
            except OSError:
                return True

        def _answer(self, code: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            try:
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:  # the caller has gone
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    class Quiet(ThreadingHTTPServer):
        request_queue_size = 512
        daemon_threads = True

    server = Quiet(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
