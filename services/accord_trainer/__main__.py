"""`python -m accord_trainer`: serves until SIGTERM. Under torchrun rank 0 serves and the others compute with it."""

import logging
import os
import signal
import sys

from accord.errors import AccordError
from accord_runtime.main import begin, run_service
from accord_trainer.service import build, follow
from accord_trainer.settings import TrainerSettings


def main() -> None:
    """Ranks other than 0 end when rank 0 says so, or is gone: it still needs them for the step in work."""
    if os.environ.get("RANK", "0") == "0":
        run_service("trainer", TrainerSettings, build)
        if "RANK" in os.environ:
            leave(0)
        return
    settings = begin("trainer", TrainerSettings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    try:
        follow(settings)
    except AccordError as error:
        sys.stderr.write(f"accord_trainer: {error.message} [{error.reason}]\n")
        leave(70)
    leave(0)


def leave(code: int) -> None:
    """Ends at once: the threads of a process group abort an ordinary exit now and then."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
