"""Assembles the preference service: settings -> store -> parts -> servicers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import grpc

from accord.preference import v1 as preference_v1
from accord_preference.annotators import Annotators
from accord_preference.context import Context
from accord_preference.datasets.snapshots import Snapshots
from accord_preference.feedback.feedback import Feedback
from accord_preference.feedback.imports import Imports
from accord_preference.prompts import Prompts
from accord_preference.quality.quality import Quality
from accord_preference.servicer import AnnotatorServicer, PreferenceServicer
from accord_preference.settings import PreferenceSettings
from accord_preference.statistics import Statistics
from accord_preference.storage.opening import open_store
from accord_preference.storage.store import Store
from accord_preference.tasks.flags import Flags
from accord_preference.tasks.tasks import Tasks
from accord_runtime.database.transactions import database_url
from accord_runtime.serving.idempotency import retrying


class PreferenceService:
    """The preference service, ready to serve."""

    def __init__(self, store: Store, settings: PreferenceSettings, clock: Callable[[], float] = time.time):
        self._store = store
        context = Context(store, settings, clock)
        quality = Quality(context)
        self._annotators = AnnotatorServicer(Annotators(context), quality)
        self._servicer = PreferenceServicer(
            Prompts(context),
            Tasks(context),
            Flags(context),
            Feedback(context),
            Imports(context),
            Snapshots(context),
            Statistics(context, quality),
        )

    @property
    def service_names(self) -> Sequence[str]:
        """For health and reflection."""
        return (
            preference_v1.ANNOTATOR_SERVICE.services_by_name["AnnotatorService"].full_name,
            preference_v1.PREFERENCE_SERVICE.services_by_name["PreferenceService"].full_name,
        )

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the servicers."""
        preference_v1.add_PreferenceServiceServicer_to_server(self._servicer, server)
        preference_v1.add_AnnotatorServiceServicer_to_server(self._annotators, server)

    async def close(self) -> None:
        """Closes the database."""
        await self._store.close()


def database_of(settings: PreferenceSettings) -> str:
    """The URL of the service's database."""
    return database_url(settings.database_url, default=settings.state_dir / "preference.db")


async def build(settings: PreferenceSettings, clock: Callable[[], float] = time.time) -> PreferenceService:
    """Opens the store with a current schema and checks that it has the split of the settings. `clock`: seconds since
    1970.

    Raises FailedPrecondition, SPLIT_CHANGED, if the database was created with a different split: prompts would change
    sides, and new snapshots would contradict earlier ones.
    """
    store = await open_store(database_of(settings), settings)

    async def pin() -> None:
        async with store.writing() as tx:
            await tx.pin_split(settings.heldout_fraction, settings.split_salt)

    try:
        await retrying(pin)
    except BaseException:
        await store.close()
        raise
    return PreferenceService(store, settings, clock)
