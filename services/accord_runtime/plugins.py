"""Implementations found by name through entry points, so that adding one touches no code of ours."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from accord.errors import FailedPrecondition, InvalidArgument


def names(group: str) -> list[str]:
    """The names that can be loaded, sorted."""
    return sorted(entry_points(group=group).names)


def load(group: str, name: str, field: str = "name") -> Any:
    """What entry point `name` of `group` stands for.

    Errors: InvalidArgument at `field`, reason UNKNOWN_<KIND>, listing what there is; FailedPrecondition where it
    is there but cannot be imported (its extra is not installed).
    """
    found = entry_points(group=group, name=name)
    if not found:
        known = ", ".join(names(group)) or "none is installed"
        kind = group.removeprefix("accord.").removesuffix("s")
        raise InvalidArgument.at(field, f"unknown {kind} {name!r}; there is: {known}", reason=f"UNKNOWN_{kind.upper()}")
    try:
        return next(iter(found)).load()
    except (ImportError, AttributeError) as error:
        raise FailedPrecondition(
            f"{name} cannot be imported: {error}. Is the extra that it needs installed?", reason="PLUGIN_BROKEN"
        ) from error
