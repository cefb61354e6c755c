"""`python -m accord_trainer`: serves until SIGTERM. Under torchrun rank 0 serves and the others compute with it."""

import logging
import os
import signal
import sys
from functools import partial

from accord.errors import AccordError
from accord_runtime.serving.main import begin, run_service
from accord_trainer.heap import keep_freed_memory
from accord_trainer.service import build, follow, make_bench
from accord_trainer.settings import TrainerSettings


def main() -> None:
    """A service of one process, or one rank of it."""
    keep_freed_memory()
    if "RANK" not in os.environ:
        run_service("trainer", TrainerSettings, build)
        return
    settings = begin("trainer", TrainerSettings)
    try:
        # Before anything catches signals: who waits for a rank that never comes can be told to stop.
        bench = make_bench(settings)
        if bench.world.rank == 0:
            run_service("trainer", TrainerSettings, partial(build, bench=bench))
        else:
            # They end when rank 0 says so, or is gone: it still needs them for the step in work.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            follow(settings, bench)
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
