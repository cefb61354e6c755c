"""Fields with a better name: services set both names, and clients and services read either."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf.descriptor import FieldDescriptor
from tests.support.rollout import rollout_service, weights_ref

from accord.controller import v1 as controller_v1
from accord.renamed import resident_weights, serving_replicas
from accord.rollout import v1 as rollout_v1
from accord_controller.models.registry import ModelRegistry
from accord_controller.operator import status as operator_status

pytestmark = pytest.mark.process

# The former name of each field that has another one since.
RENAMED: dict[FieldDescriptor, str] = {
    message.DESCRIPTOR.fields_by_name[former]: name
    for message, former, name in (
        (controller_v1.RunStatus, "drawing", "serving_replicas"),
        (controller_v1.RollBackModelRequest, "in_force", "active_model"),
        (rollout_v1.UpdateWeightsResponse, "held", "resident_weights"),
        (rollout_v1.ActivateWeightsResponse, "held", "resident_weights"),
        (rollout_v1.GetStatusResponse, "held", "resident_weights"),
    )
}
FOUND = rollout_v1.HeldWeights(checksum="abc")


def test_every_deprecated_field_is_replaced_by_one_of_the_same_type() -> None:
    files = (controller_v1.RunStatus, controller_v1.RollBackModelRequest, rollout_v1.GetStatusResponse)
    deprecated = {
        field
        for file in files
        for message in file.DESCRIPTOR.file.message_types_by_name.values()
        for field in message.fields
        if field.GetOptions().deprecated
    }
    assert deprecated == set(RENAMED)
    for former, name in RENAMED.items():
        new = former.containing_type.fields_by_name[name]
        assert (new.type, new.message_type) == (former.type, former.message_type)


@pytest.mark.parametrize(
    "message",
    [rollout_v1.GetStatusResponse, rollout_v1.UpdateWeightsResponse, rollout_v1.ActivateWeightsResponse],
    ids=lambda message: str(message.DESCRIPTOR.name),
)
def test_resident_weights_are_read_from_services_of_either_age(message: Any) -> None:
    assert resident_weights(message(held=FOUND)) == FOUND
    assert resident_weights(message(resident_weights=FOUND)) == FOUND
    assert resident_weights(message()) == rollout_v1.HeldWeights()


def test_serving_replicas_are_read_from_controllers_of_either_age() -> None:
    for status in (controller_v1.RunStatus(drawing=3), controller_v1.RunStatus(serving_replicas=3)):
        assert serving_replicas(status) == 3
        assert operator_status.status_of(controller_v1.Run(run_id="demo", status=status))["replicas"] == 3


async def test_a_rollout_service_sets_both_names(tmp_path: Path, tiny_folder: Path) -> None:
    async with rollout_service(tmp_path, model=tiny_folder) as (stub, _):
        weights = weights_ref(tiny_folder, version=1)
        updated = await stub.UpdateWeights(rollout_v1.UpdateWeightsRequest(request_id="update", weights=weights))
        await stub.PrepareWeights(rollout_v1.PrepareWeightsRequest(request_id="prepare", weights=weights))
        activated = await stub.ActivateWeights(rollout_v1.ActivateWeightsRequest(request_id="activate", version=1))
        status = await stub.GetStatus(rollout_v1.GetStatusRequest())
    for answer in (updated, activated, status):
        assert answer.held == answer.resident_weights
        assert answer.resident_weights.digest == weights.digest


@pytest.mark.parametrize("field", ["in_force", "active_model"])
async def test_a_roll_back_checks_the_active_model_under_either_name(field: str) -> None:
    class Store:
        """Remembers what is expected to be active."""

        expected = ""

        async def get_run(self, run_id: str) -> controller_v1.Run:
            return controller_v1.Run(run_id=run_id)

        async def get_model(self, name: str) -> controller_v1.Model:
            return controller_v1.Model(name=name)

        async def roll_back(self, run_id: str, expected: str, asked: object) -> str:
            self.expected = expected
            return "demo-1"

    store = Store()
    request = controller_v1.RollBackModelRequest(request_id="r", run_id="demo")
    setattr(request, field, "models/demo-2")
    assert (await ModelRegistry(cast("Any", store)).roll_back(request)).name == "demo-1"
    assert store.expected == "demo-2"
