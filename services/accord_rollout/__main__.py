"""`python -m accord_rollout`: serves until SIGTERM."""

from accord_rollout.service import build
from accord_rollout.settings import RolloutSettings
from accord_runtime.serving.main import run_service

if __name__ == "__main__":
    run_service("rollout", RolloutSettings, build)
