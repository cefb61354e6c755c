"""Opens the store for the scheme of a URL. Stores are entry points of the group `accord.stores`."""

from __future__ import annotations

from typing import Protocol

from accord import plugins
from accord.errors import InvalidArgument
from accord_preference.storage.store import Store
from accord_runtime.serving.settings import DatabaseSettings

GROUP = "accord.stores"


class OpenStore(Protocol):
    """The function that an entry point names, one for each scheme."""

    async def __call__(self, url: str, settings: DatabaseSettings | None) -> Store:
        """The store at `url` with a current schema. `settings` say who migrates it and how long to wait; without
        settings, this call migrates it."""
        ...


async def open_store(url: str, settings: DatabaseSettings | None = None) -> Store:
    """The store at `url`, as `OpenStore`. InvalidArgument; UNKNOWN_STORE for a scheme without an entry point."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise InvalidArgument.at("database_url", f"is not a URL: {url!r}. For example: sqlite:///data.db")
    # The part after a plus is the driver.
    opener: OpenStore = plugins.load(GROUP, scheme.partition("+")[0], field="database_url")
    return await opener(url, settings)
