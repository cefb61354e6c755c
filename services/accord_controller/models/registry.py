"""The registry of promoted policies: the active policy of each run, and who activated it."""

from __future__ import annotations

from urllib.parse import urlsplit

from accord.controller import v1 as controller_v1
from accord.errors import FailedPrecondition
from accord_controller.models.lineage import no_model
from accord_controller.spec import files
from accord_controller.store.changes import ChangeRequest
from accord_controller.store.store import Store


class ModelRegistry:
    """Finds models; promotes and rolls back."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def find(self, name: str) -> controller_v1.Model | None:
        """The model with this name, the active policy of the run with this name, or None."""
        return await self._store.get_model(name) or await self._store.active_model(name)

    async def get(self, name: str) -> controller_v1.Model:
        """The same, but also accepts `models/<name>`. NotFound, MODEL_NOT_FOUND."""
        found = await self.find(name.removeprefix(files.REGISTRY))
        if found is None:
            raise no_model(name)
        return found

    async def promote(self, request: controller_v1.PromoteModelRequest) -> controller_v1.Model:
        """Makes a model its run's active policy. NotFound; FailedPrecondition, WEIGHTS_GONE, if its folder is
        missing."""
        model = await self._store.get_model(request.name.removeprefix(files.REGISTRY))
        if model is None:
            raise no_model(request.name)
        uri = model.weights.uri
        if urlsplit(uri).scheme == "file" and not files.model_folder(uri).is_dir():
            raise FailedPrecondition(
                f"The weights of {model.name} no longer exist at {files.model_folder(uri)}. Promote another model",
                reason="WEIGHTS_GONE",
                metadata={"uri": uri},
            )
        kind = controller_v1.MODEL_CHANGE_KIND_PROMOTED
        await self._store.promote(model, ChangeRequest(kind, request.operator, request.reason, request.request_id))
        return await self.get(model.name)

    async def roll_back(self, request: controller_v1.RollBackModelRequest) -> controller_v1.Model:
        """Returns to the previous active policy. NotFound, RUN_NOT_FOUND; FailedPrecondition, NOTHING_TO_ROLL_BACK;
        Aborted, MODEL_CHANGED."""
        await self._store.get_run(request.run_id)
        kind = controller_v1.MODEL_CHANGE_KIND_ROLLED_BACK
        change = ChangeRequest(kind, request.operator, request.reason, request.request_id)
        expected = (request.active_model or request.in_force).removeprefix(files.REGISTRY)
        return await self.get(await self._store.roll_back(request.run_id, expected, change))
