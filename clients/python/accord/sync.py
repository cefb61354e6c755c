"""`accord.SyncClient`: the SDK without async, for scripts, notebooks and threads.

It runs `accord.Client` in its own event loop. Its types, in sync.pyi, are generated from the async resources by
scripts/generate_sync.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from accord._blocking import Blocking, LoopThread, stop_when_collected
from accord.client import Client

RESOURCES = ("rollout", "reward", "preferences", "annotators", "trainer", "runs", "models", "usage")


class SyncClient:
    """`accord.Client`, blocking: methods wait for the result, async iterators are iterators.

        with accord.SyncClient(rollout="127.0.0.1:7001") as client:
            for response in client.rollout.generate(["Hello!"], sampling=SamplingParams(max_new_tokens=32)):
                print(response.sample.text)

    Can be used from several threads, and within a running event loop (Jupyter), which it blocks while it waits.
    """

    def __init__(self, **options: Any) -> None:
        self._open(Client(**options))

    @classmethod
    def discover(cls, state_dir: Path | None = None) -> Self:
        made = cls.__new__(cls)
        made._open(Client.discover(state_dir))
        return made

    def _open(self, client: Client) -> None:
        self._client = client
        self._thread = LoopThread()
        self._finish = stop_when_collected(self, client.close, self._thread)

    @property
    def addresses(self) -> dict[str, str]:
        return self._client.addresses

    def __getattr__(self, name: str) -> Any:
        if name not in RESOURCES:
            raise AttributeError(f"SyncClient has no attribute {name!r}; available: {', '.join(RESOURCES)}")

        async def resource() -> Any:
            return getattr(self._client, name)  # opens the channel, which belongs to the loop in which it is opened

        return Blocking(self._thread.run(resource()), self._thread)

    def close(self) -> None:
        self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
