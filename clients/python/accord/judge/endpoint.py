"""A judge behind an OpenAI-compatible endpoint: POST {base}/chat/completions."""

from __future__ import annotations

import asyncio
import http.client
import json
import urllib.error
import urllib.request
from typing import Any

from accord.errors import AccordError, FailedPrecondition, InvalidArgument, Unavailable

TIMEOUT_SECONDS = 120.0
TRIES = 3
WAIT_SECONDS = 0.5
MAX_TOKENS = 512
# Statuses that may be temporary: too many requests, timeouts, conflicts.
TEMPORARY = (408, 409, 425, 429)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key is meant for the given host only."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


class Endpoint:
    """A model at an endpoint. `url`: its base, like `http://localhost:8000/v1`; `key`: sent as bearer token if set."""

    def __init__(self, url: str, model: str, *, key: str = "", timeout: float = TIMEOUT_SECONDS) -> None:
        if not url.startswith(("http://", "https://")):
            raise InvalidArgument.at("url", f"must start with http:// or https://, not {url!r}")
        self._url = url.rstrip("/") + "/chat/completions"
        self._model = model
        self._key = key
        self._timeout = timeout

    async def ask(self, system: str, question: str) -> str:
        """The reply at temperature 0. Unavailable, JUDGE_UNREACHABLE, after three tries; FailedPrecondition,
        JUDGE_REFUSED."""
        body = {
            "model": self._model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
        }
        for attempt in range(TRIES):
            try:
                return await asyncio.to_thread(self._post, body)
            except Unavailable:
                if attempt + 1 == TRIES:
                    raise
                await asyncio.sleep(WAIT_SECONDS * 2**attempt)
        raise AssertionError("unreachable: the last try returns or raises")

    def _post(self, body: dict[str, Any]) -> str:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
        try:
            with _OPENER.open(request, timeout=self._timeout) as response:
                found = json.loads(response.read())
        except urllib.error.HTTPError as error:
            raise self._refused(error.code, error.read(2000).decode(errors="replace")) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Unavailable(f"{self._url} did not answer: {error}", reason="JUDGE_UNREACHABLE") from error
        try:
            return str(found["choices"][0]["message"]["content"] or "")
        except (KeyError, IndexError, TypeError) as error:
            raise FailedPrecondition(
                f"{self._url} is not an OpenAI-compatible endpoint; it answered: {str(found)[:200]}",
                reason="JUDGE_REFUSED",
            ) from error

    def _refused(self, status: int, body: str) -> AccordError:
        message = f"{self._url} answered {status}: {body[:500]}"
        if status in TEMPORARY or status >= 500:
            return Unavailable(message, reason="JUDGE_UNREACHABLE")
        return FailedPrecondition(message, reason="JUDGE_REFUSED")
