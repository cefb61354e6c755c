"""The context that all parts of the service share."""

from __future__ import annotations

from collections.abc import Callable

from accord.errors import NotFound
from accord_preference.settings import PreferenceSettings
from accord_preference.storage.store import Store, Writer
from accord_runtime.serving.idempotency import OnceInTransaction


class Context:
    """Store, settings, clock, and `once`, which answers repeated requests."""

    def __init__(self, store: Store, settings: PreferenceSettings, clock: Callable[[], float]):
        """`clock`: seconds since 1970; the service uses no other clock."""
        self.store = store
        self.settings = settings
        self.once: OnceInTransaction[Writer] = OnceInTransaction(store, self.now_us)
        self._clock = clock

    def now_us(self) -> int:
        """Now, in microseconds since 1970."""
        return int(self._clock() * 1_000_000)


def not_found(what: str, name: str, field: str) -> NotFound:
    """The error for a missing object; it names the object and the field of the request."""
    return NotFound(
        f"{field}: {what} {name!r} does not exist",
        reason=f"{what.upper()}_NOT_FOUND",
        metadata={"field": field, f"{what}_id": name},
    )
