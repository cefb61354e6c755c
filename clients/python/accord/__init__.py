"""Accord: RLHF as independent gRPC services. This package is the client: contracts, SDK and command line.

    import accord

    async with accord.Client(rollout="127.0.0.1:7001") as client: ...     # async
    with accord.SyncClient(rollout="127.0.0.1:7001") as client: ...       # the same, blocking

The names here are imported at first use, so that `import accord` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accord._calls import RetryPolicy as RetryPolicy
    from accord.channel import TLS as TLS
    from accord.channel import open_channel as open_channel
    from accord.client import Client as Client
    from accord.conversations import conversation as conversation
    from accord.errors import AccordError as AccordError
    from accord.replicas.client import Replicas as Replicas
    from accord.runfile import load_run as load_run
    from accord.sync import SyncClient as SyncClient

_WHERE = {
    "AccordError": "accord.errors",
    "Client": "accord.client",
    "Replicas": "accord.replicas.client",
    "RetryPolicy": "accord._calls",
    "SyncClient": "accord.sync",
    "TLS": "accord.channel",
    "conversation": "accord.conversations",
    "load_run": "accord.runfile",
    "open_channel": "accord.channel",
}
_MODULES = ("channel", "discovery", "errors", "formats", "runfile")

__all__ = [*_WHERE, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"accord.{name}")
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'accord' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
