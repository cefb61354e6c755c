"""The registry of promoted policies: what is in force for each run, changed by people and remembered."""

from __future__ import annotations

from urllib.parse import urlsplit

from accord.controller import v1 as controller_v1
from accord.errors import FailedPrecondition, InvalidArgument, NotFound
from accord_controller.spec import files
from accord_controller.store.changes import Asked
from accord_controller.store.store import Store

LONGEST = {"reason": 2000, "operator": 200, "request_id": 200}


class ModelRegistry:
    """Finds models; promotes and rolls back."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def find(self, name: str) -> controller_v1.Model | None:
        """A model by its name, or a run's policy in force by the run's name, or None."""
        return await self._store.get_model(name) or await self._store.in_force(name)

    async def get(self, name: str) -> controller_v1.Model:
        """The same, also by `models/<name>`. NotFound, MODEL_NOT_FOUND."""
        found = await self.find(name.removeprefix(files.REGISTRY))
        if found is None:
            raise _no_model(name)
        return found

    async def promote(self, request: controller_v1.PromoteModelRequest) -> controller_v1.Model:
        """Puts a model in force for its run. NotFound; FailedPrecondition, WEIGHTS_GONE, where its folder is gone."""
        _check_lengths(request)
        model = await self._store.get_model(request.name.removeprefix(files.REGISTRY))
        if model is None:
            raise _no_model(request.name)
        uri = model.weights.uri
        if urlsplit(uri).scheme == "file" and not files.model_folder(uri).is_dir():
            raise FailedPrecondition(
                f"the weights of {model.name} are gone from {files.model_folder(uri)}; promote another",
                reason="WEIGHTS_GONE",
                metadata={"uri": uri},
            )
        kind = controller_v1.MODEL_CHANGE_KIND_PROMOTED
        await self._store.promote(model, Asked(kind, request.operator, request.reason, request.request_id))
        return await self.get(model.name)

    async def roll_back(self, request: controller_v1.RollBackModelRequest) -> controller_v1.Model:
        """Puts in force what was before. NotFound, RUN_NOT_FOUND; FailedPrecondition, NOTHING_TO_ROLL_BACK; Aborted."""
        _check_lengths(request)
        await self._store.get_run(request.run_id)
        kind = controller_v1.MODEL_CHANGE_KIND_ROLLED_BACK
        asked = Asked(kind, request.operator, request.reason, request.request_id)
        in_force = request.in_force.removeprefix(files.REGISTRY)
        return await self.get(await self._store.roll_back(request.run_id, in_force, asked))


def _check_lengths(request: controller_v1.PromoteModelRequest | controller_v1.RollBackModelRequest) -> None:
    for field, most in LONGEST.items():
        length = len(getattr(request, field))
        if length > most:
            raise InvalidArgument.at(field, f"is {length} characters long; at most {most}")


def _no_model(name: str) -> NotFound:
    return NotFound(f"there is no model {name}; `accord models list` shows what there is", reason="MODEL_NOT_FOUND")
