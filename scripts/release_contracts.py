"""Record the current contract under the version in pyproject.toml; later versions must stay compatible with it.

    python scripts/release_contracts.py

It writes tests/contracts/released/v<version>.binpb, which `buf breaking` compares with and the upgrade tests use. A
recorded contract never changes: the script refuses another contract under the same version.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from generate import PROTOS, ROOT, third_party

RELEASED = ROOT / "tests" / "contracts" / "released"
BUF = Path(sys.executable).parent / "buf"


def image() -> bytes:
    """The descriptors of every contract, without comments and places in files: what is on the wire and no more."""
    third_party()
    built = subprocess.run(
        [BUF, "build", str(PROTOS), "--exclude-source-info", "-o", "-#format=binpb"], capture_output=True, check=False
    )
    if built.returncode != 0:
        sys.exit(f"buf build failed:\n{built.stderr.decode()}")
    return built.stdout


def record(folder: Path, version: str, contract: bytes) -> Path:
    """The file of the version, written unless it is there as it is. Exit code 1 where it holds another contract."""
    path = folder / f"v{version}.binpb"
    if path.exists() and path.read_bytes() != contract:
        sys.exit(
            f"{path.name} is recorded with another contract, and what was released never changes: raise the version in "
            "pyproject.toml first"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contract)
    return path


def main() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    path = record(RELEASED, version, image())
    print(f"recorded {path.relative_to(ROOT)}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
