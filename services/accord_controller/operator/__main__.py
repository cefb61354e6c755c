"""`python -m accord_controller.operator`: manages the Runs of a namespace until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys

import kopf
from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

import accord
from accord.errors import AccordError
from accord_controller.cluster import Cluster
from accord_controller.operator.manager import OperatorManager, registry
from accord_controller.operator.resync import Resync
from accord_controller.operator.seen_runs import SeenRuns
from accord_controller.operator.settings import OperatorSettings
from accord_controller.operator.status_writer import StatusWriter

log = logging.getLogger("accord.operator")


async def serve(settings: OperatorSettings) -> None:
    """Runs kopf until SIGTERM or SIGINT. The controller continues the runs while the operator is down."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    cluster = Cluster(settings.namespace)
    options = kopf.OperatorSettings()
    options.scanning.disabled = True  # one namespace, one resource: no permission to read the cluster needed
    options.posting.enabled = False  # StatusWriter posts each event once
    async with accord.Client(controller=settings.controller_address) as client:
        seen_runs = SeenRuns(cluster)
        manager = OperatorManager(client, StatusWriter(cluster), seen_runs, settings.data_dir)
        resync = asyncio.create_task(Resync(client, cluster, seen_runs).keep(), name="resync")
        try:
            await kopf.operator(
                registry=registry(manager),
                settings=options,
                standalone=True,
                namespaces=[cluster.namespace],
                liveness_endpoint=f"http://0.0.0.0:{settings.health_port}/healthz",
                stop_flag=stop,
            )
        finally:
            resync.cancel()
            await asyncio.gather(resync, return_exceptions=True)
            await manager.close()
            await cluster.close()


def main() -> None:
    """Exits with code 2 for a bad setting, and with 1 if no cluster is configured."""
    try:
        settings = CliApp.run(OperatorSettings)
    except (ValidationError, SettingsError) as error:
        print(f"accord_controller.operator: {error}", file=sys.stderr)
        sys.exit(2)
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(settings))
    except AccordError as error:
        sys.exit(f"accord_controller.operator: {error.message} [{error.reason}]")


if __name__ == "__main__":
    main()
