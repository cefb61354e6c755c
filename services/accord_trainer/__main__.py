"""`python -m accord_trainer`: serves until SIGTERM."""

from accord_runtime.main import run_service
from accord_trainer.service import build
from accord_trainer.settings import TrainerSettings

if __name__ == "__main__":
    run_service("trainer", TrainerSettings, build)
