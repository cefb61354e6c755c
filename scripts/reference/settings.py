"""Every setting of every service: flag, environment variable, type, default, limits, meaning."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic_settings import BaseSettings

from accord_console.settings import ConsoleSettings
from accord_controller.operator.settings import OperatorSettings
from accord_controller.settings import ControllerSettings
from accord_preference.settings import PreferenceSettings
from accord_reward.settings import RewardSettings
from accord_rollout.settings import RolloutSettings
from accord_runtime.serving.settings import DatabaseSettings, ServiceSettings
from accord_trainer.settings import TrainerSettings
from reference.markdown import cell, code, generated, lines, sentence, table
from reference.models import default_of, limits_of, own_fields, type_of

SERVICES: dict[str, type[BaseSettings]] = {
    "rollout": RolloutSettings,
    "reward": RewardSettings,
    "preference": PreferenceSettings,
    "trainer": TrainerSettings,
    "controller": ControllerSettings,
    "console": ConsoleSettings,
    "operator": OperatorSettings,
}
HEADER = ("flag, variable", "type, default, limits", "meaning")
INTRODUCTION = """# Settings

Start a service with `python -m accord_<service>`. Every setting is a flag and an environment variable; the flag takes
precedence. `--help` prints the same list. A service refuses to start with an unknown flag.
"""


def page() -> str:
    """docs/reference/settings.md."""
    parts = [
        INTRODUCTION,
        "## Every service\n",
        "`<SERVICE>` is `ROLLOUT`, `REWARD`, `PREFERENCE`, `TRAINER`, `CONTROLLER` or `CONSOLE`.\n",
    ]
    parts.append(table(HEADER, _rows("<SERVICE>", ServiceSettings, BaseSettings)))
    parts += ["## Services with a database\n", "The preference service and the controller.\n"]
    parts.append(table(HEADER, _rows("<SERVICE>", DatabaseSettings, ServiceSettings)))
    for name, settings in SERVICES.items():
        common = next(c for c in (DatabaseSettings, ServiceSettings, BaseSettings) if issubclass(settings, c))
        module = "accord_controller.operator" if name == "operator" else f"accord_{name}"
        parts += [f"## {name.capitalize()}\n", f"`python -m {module}`\n"]
        rows = list(_rows(name.upper(), settings, common))
        parts.append(table(HEADER, rows) if rows else "No additional settings.\n")
    return generated("\n".join(parts))


def _rows(service: str, settings: type[BaseSettings], common: type[BaseSettings]) -> Iterator[tuple[str, ...]]:
    for name, field in own_fields(settings, common).items():
        yield (
            lines(code("--" + name.replace("_", "-")), code(f"ACCORD_{service}_{name.upper()}")),
            lines(cell(type_of(field.annotation)), code(default_of(field)), cell(limits_of(field))),
            cell(sentence(field.description or "")),
        )
