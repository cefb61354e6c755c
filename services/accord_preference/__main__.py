"""`python -m accord_preference`: serves prompts, annotation tasks, feedback and snapshots."""

from __future__ import annotations

from accord_preference.settings import PreferenceSettings
from accord_runtime.serving.main import run_service
from accord_runtime.serving.server import Service


async def build(settings: PreferenceSettings) -> Service:
    """The service. The database code is imported only now, so that --help does not need it."""
    from accord_preference import service

    return await service.build(settings)


def main() -> None:
    """Parses flags and environment, serves until SIGTERM or SIGINT."""
    run_service("preference", PreferenceSettings, build)


if __name__ == "__main__":
    main()
