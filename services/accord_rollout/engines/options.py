"""Reads `engine_options` of the settings into the options model of one engine; errors name the field."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from accord.errors import FieldViolation, InvalidArgument
from accord_rollout.settings import RolloutSettings


class EngineOptions(BaseModel):
    """Base of an engine's options: frozen; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Options = TypeVar("Options", bound=EngineOptions)


def read_options(kind: type[Options], settings: RolloutSettings) -> Options:
    """The options as `kind`. InvalidArgument/BAD_ENGINE_OPTIONS naming each wrong field."""
    try:
        return kind.model_validate(settings.engine_options)
    except ValidationError as error:
        found = [
            FieldViolation(".".join(["engine_options", *map(str, each["loc"])]), each["msg"]) for each in error.errors()
        ]
        known = ", ".join(sorted(kind.model_fields))
        raise InvalidArgument(
            "; ".join(f"{one.field}: {one.description}" for one in found) + f"; {settings.engine} accepts: {known}",
            reason="BAD_ENGINE_OPTIONS",
            violations=found,
        ) from error
