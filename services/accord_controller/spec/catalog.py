"""The names that a spec can use: the plugins of the run's services, and the models of the registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from accord import plugins
from accord.controller import v1 as controller_v1
from accord_controller.settings import ControllerSettings
from accord_controller.spec.files import REGISTRY

_SERVICE_OF = {"accord.engines": "rollout", "accord.scorers": "reward", "accord.algorithms": "trainer"}


class SpecCatalog:
    """The names that a spec is checked against. `models`: the registered models that the spec names, by name;
    `shares_plugins`: whether the services that the launcher starts have the plugins installed here."""

    def __init__(
        self, settings: ControllerSettings, models: Mapping[str, controller_v1.Model], *, shares_plugins: bool = True
    ) -> None:
        self._settings = settings
        self._shares_plugins = shares_plugins
        self.models = models

    def names(self, group: str) -> Sequence[str] | None:
        """The plugins of an entry-point group (`accord.engines`, ...) that the run's service has. None if the service
        runs elsewhere: it may have other plugins, and reports an unknown name itself."""
        return None if self._settings.address(_SERVICE_OF[group]) else self.startable(group)

    def startable(self, group: str) -> Sequence[str] | None:
        """The same for a service that is started for the run."""
        return plugins.names(group) if self._shares_plugins else None


def model_names(spec: controller_v1.RunSpec) -> set[str]:
    """The registered models that a spec names (`models/<name>`)."""
    return {
        uri.removeprefix(REGISTRY)
        for uri in (spec.model, spec.reward_model.model, *(judge.policy for judge in spec.feedback.judges.judges))
        if uri.startswith(REGISTRY)
    }


def pin_models(spec: controller_v1.RunSpec, models: Mapping[str, controller_v1.Model]) -> None:
    """Replaces each `models/<run>` with the model that it currently stands for, `models/<run>-<iteration>`."""

    def exact(uri: str) -> str:
        name = uri.removeprefix(REGISTRY)
        return REGISTRY + models[name].name if uri.startswith(REGISTRY) else uri

    spec.model, spec.reward_model.model = exact(spec.model), exact(spec.reward_model.model)
    for judge in spec.feedback.judges.judges if spec.feedback.HasField("judges") else ():
        if judge.policy:
            judge.policy = exact(judge.policy)
