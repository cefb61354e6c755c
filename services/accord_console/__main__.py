"""`python -m accord_console`: serves the web pages until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import sys

from accord.errors import AccordError
from accord_console.settings import ConsoleSettings
from accord_runtime.serving.main import begin


def main() -> None:
    """Reads flags and environment, and serves. Exit code 2 for a wrong setting, 1 if it cannot start."""
    settings = begin("console", ConsoleSettings)
    from accord_console.serving import run

    try:
        asyncio.run(run(settings))
    except AccordError as error:
        sys.exit(f"accord_console: {error.message} [{error.reason}]")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
