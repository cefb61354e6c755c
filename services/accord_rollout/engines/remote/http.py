"""HTTP calls to a remote inference server: each has a deadline, and each failure a type."""

from __future__ import annotations

import os
from typing import Any

import httpx2
from pydantic import Field, SecretStr, field_validator

from accord.errors import (
    AccordError,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)
from accord_rollout.engines.options import EngineOptions


class ServerOptions(EngineOptions):
    """`engine_options` that the engines for remote servers have in common."""

    url: str = Field(description="The server's address: http://host:port, without /v1.")
    api_key: SecretStr | None = Field(
        None, description="Sent as bearer token; unset: the environment variable OPENAI_API_KEY."
    )
    connect_seconds: float = Field(10, gt=0, description="Deadline for a connection, seconds.")
    request_seconds: float = Field(
        600, gt=0, description="Deadline of one sample, including its wait for a connection, seconds."
    )
    update_seconds: float = Field(300, gt=0, description="Deadline of each step of a weight update, seconds.")
    max_connections: int = Field(
        256, ge=1, description="The maximum number of concurrent requests for samples; others wait here."
    )

    @field_validator("url")
    @classmethod
    def _http(cls, given: str) -> str:
        if not given.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return given.rstrip("/").removesuffix("/v1")


class Server:
    """JSON in, JSON out. Raises only AccordError."""

    def __init__(self, options: ServerOptions) -> None:
        self.url = options.url
        self._options = options
        key = options.api_key.get_secret_value() if options.api_key else os.environ.get("OPENAI_API_KEY", "")
        self._client = httpx2.AsyncClient(
            base_url=options.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx2.Limits(max_connections=options.max_connections),
        )

    async def get(self, path: str) -> dict[str, Any]:
        """A short call."""
        return await self._call("GET", path, None, 30)

    async def post(self, path: str, body: dict[str, Any], seconds: float) -> dict[str, Any]:
        """A call with a deadline of `seconds`, including the wait for a free connection."""
        return await self._call("POST", path, body, seconds)

    async def has(self, path: str) -> bool:
        """Whether the server has this path."""
        try:
            await self.get(path)
        except FailedPrecondition as error:
            if error.reason == "SERVER_LACKS":
                return False
            raise
        return True

    async def close(self) -> None:
        """Closes the connections; running calls fail as Unavailable."""
        await self._client.aclose()

    async def _call(self, method: str, path: str, body: dict[str, Any] | None, seconds: float) -> dict[str, Any]:
        timeout = httpx2.Timeout(seconds, connect=min(self._options.connect_seconds, seconds))
        try:
            response = await self._client.request(method, path, json=body, timeout=timeout)
        except httpx2.ConnectTimeout as error:
            raise self._unreachable(path, error) from error
        except httpx2.TimeoutException as error:
            raise DeadlineExceeded(
                f"{self.url}{path} did not respond within {seconds:g} s", reason="SERVER_TIMEOUT"
            ) from error
        except (httpx2.TransportError, RuntimeError) as error:  # RuntimeError: closed in the meantime
            raise self._unreachable(path, error) from error
        if response.is_success:
            return self._object(path, response)
        raise self._refusal(path, response)

    def _object(self, path: str, response: httpx2.Response) -> dict[str, Any]:
        if not response.content:
            return {}
        try:
            answer = response.json()
        except ValueError as error:
            raise Internal(f"{self.url}{path} did not return JSON: {error}", reason="SERVER_ANSWER") from error
        return answer if isinstance(answer, dict) else {"answer": answer}

    def _refusal(self, path: str, response: httpx2.Response) -> AccordError:
        text = f"{self.url}{path} returned {response.status_code}: {response.text[:500]}"
        code = response.status_code
        if code in (401, 403):
            return FailedPrecondition(f"{text}; check api_key", reason="SERVER_DENIES")
        if code in (404, 405):
            return FailedPrecondition(text, reason="SERVER_LACKS")
        if code == 429:
            return ResourceExhausted(text, reason="SERVER_OVERLOADED")
        if code < 500:
            return InvalidArgument(text, reason="SERVER_REFUSES")
        return Unavailable(text, reason="SERVER_FAILS")

    def _unreachable(self, path: str, error: Exception) -> Unavailable:
        what = str(error) or type(error).__name__
        return Unavailable(
            f"{self.url}{path} cannot be reached: {what}. Is the server running?", reason="SERVER_UNREACHABLE"
        )
