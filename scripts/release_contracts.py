"""Record the current contract under the version in pyproject.toml. Later versions must stay compatible with it.

    python scripts/release_contracts.py

It writes tests/contracts/released/v<version>.binpb, which `buf breaking` compares with and the upgrade tests use. A
recorded contract never changes: the script refuses a different contract under the same version.
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
    """The descriptors of every contract without comments and source positions: only what affects the wire format."""
    third_party()
    built = subprocess.run(
        [BUF, "build", str(PROTOS), "--exclude-source-info", "-o", "-#format=binpb"], capture_output=True, check=False
    )
    if built.returncode != 0:
        sys.exit(f"buf build failed:\n{built.stderr.decode()}")
    return built.stdout


def record(folder: Path, version: str, contract: bytes) -> Path:
    """Writes the file of the version unless it is already recorded. Exits with code 1 if it has a different
    contract."""
    path = folder / f"v{version}.binpb"
    if path.exists() and path.read_bytes() != contract:
        sys.exit(
            f"{path.name} is recorded with a different contract, and a released contract never changes. Raise the "
            "version in pyproject.toml first"
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
