"""`python -m accord_controller`: serves until SIGTERM; runs at work are paused at their next durable point then."""

from accord_controller.settings import ControllerSettings
from accord_runtime.serving.main import run_service
from accord_runtime.serving.server import Service


async def build(settings: ControllerSettings) -> Service:
    """Imports and builds the service when the settings are known to be good."""
    from accord_controller import service

    return await service.build(settings)


if __name__ == "__main__":
    run_service("controller", ControllerSettings, build)
