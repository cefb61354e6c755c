"""`python -m accord_controller`: serves until SIGTERM, then pauses the active runs at their next durable point."""

from accord_controller.settings import ControllerSettings
from accord_runtime.serving.main import run_service
from accord_runtime.serving.server import Service


async def build(settings: ControllerSettings) -> Service:
    """Imports and builds the service after the settings are validated."""
    from accord_controller import service

    return await service.build(settings)


if __name__ == "__main__":
    run_service("controller", ControllerSettings, build)
