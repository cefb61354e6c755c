"""`python -m accord_trainer`: serves until SIGTERM. Under torchrun rank 0 serves and the others compute with it."""

import os
import sys

from accord_runtime.main import begin, run_service
from accord_trainer.service import build, follow
from accord_trainer.settings import TrainerSettings

if __name__ == "__main__":
    if int(os.environ.get("RANK", "0")) == 0:
        run_service("trainer", TrainerSettings, build)
    else:
        from accord.errors import AccordError

        settings = begin("trainer", TrainerSettings)
        try:
            follow(settings)
        except AccordError as error:
            sys.stderr.write(f"accord_trainer: {error.message} [{error.reason}]\n")
            sys.stderr.flush()
            os._exit(70)  # what is left of the process group cannot be ended in order
