"""`python -m accord_trainer`: serves until SIGTERM. Under torchrun, rank 0 serves and all ranks compute."""

import logging
import os
import signal
import sys
from functools import partial

from accord.errors import AccordError
from accord_runtime.serving.main import begin, run_service
from accord_trainer.heap import keep_freed_memory
from accord_trainer.service import build, make_loader, run_worker
from accord_trainer.settings import TrainerSettings


def main() -> None:
    """A service of one process, or one rank of it."""
    keep_freed_memory()
    if "RANK" not in os.environ:
        run_service("trainer", TrainerSettings, build)
        return
    settings = begin("trainer", TrainerSettings)
    try:
        # Before signal handlers are installed, so that waiting for a rank that never joins can be interrupted.
        loader = make_loader(settings)
        if loader.world.rank == 0:
            run_service("trainer", TrainerSettings, partial(build, loader=loader))
        else:
            # These ranks end when rank 0 shuts them down or exits; rank 0 still needs them for the running step.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            run_worker(settings, loader)
    except AccordError as error:
        sys.stderr.write(f"accord_trainer: {error.message} [{error.reason}]\n")
        leave(70)
    leave(0)


def leave(code: int) -> None:
    """Exits at once: the threads of a process group sometimes abort an ordinary exit."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
