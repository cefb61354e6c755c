"""The environments that TRL runs in: one per release, created if missing, separate from Accord's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ENVIRONMENTS = Path(".accord/benchmark-envs")
CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
# The last release with a PPOTrainer, and the newest one for the other comparisons.
PPO_RELEASE, RELEASE = "1.12.0", "1.16.0"


def environment(release: str, folder: Path = ENVIRONMENTS) -> Path:
    """The Python of an environment with TRL `release`. torch and transformers are of Accord's own versions, so that
    only the trainers differ; pip's settings choose torch's build, as for Accord."""
    home = (folder / f"trl-{release}").absolute()
    python = home / "bin" / "python"
    if (home / ".complete").is_file():
        return python
    print(f"making {home}: torch and TRL {release}, a few minutes", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(CONSTRAINTS)]
    torch = next(line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch=="))
    # torch first and alone, because its exact version selects the build.
    for packages in ([torch], [f"trl=={release}", "vaderSentiment"]):
        subprocess.run([*pip, *packages], check=True)
    (home / ".complete").touch()
    return python
