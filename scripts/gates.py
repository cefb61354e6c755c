"""Run every gate that is not a test. Prints one line per gate, and the full output of those that fail.

    python scripts/gates.py            all
    python scripts/gates.py mypy buf   gates whose name starts with one of these

The gates run two at a time. Exits with code 1 if one fails.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from generate import third_party

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
RELEASED = sorted((ROOT / "tests/contracts/released").glob("*.binpb"))
GENERATORS = sorted((ROOT / "scripts").glob("generate*.py"))


@dataclass(frozen=True)
class Gate:
    name: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    gate: Gate
    passed: bool
    seconds: float
    output: str


def gates() -> list[Gate]:
    """The gates in starting order, the slowest first."""
    python, buf = sys.executable, str(BIN / "buf")
    return [
        Gate("mypy --strict", (str(BIN / "mypy"),)),
        Gate("ruff check", (str(BIN / "ruff"), "check", "--output-format", "concise", ".")),
        Gate("ruff format", (str(BIN / "ruff"), "format", "--check", ".")),
        Gate("house words", (python, str(ROOT / "scripts/house_words.py"))),
        Gate("lint-imports", (str(BIN / "lint-imports"), "--no-cache")),
        *(Gate(f"{script.stem} is fresh", (python, str(script), "--check")) for script in GENERATORS),
        Gate("buf lint", (buf, "lint", "protos")),
        Gate("buf format", (buf, "format", "--diff", "--exit-code", "protos")),
        *(Gate(f"buf breaking against {image.stem}", breaking(buf, image)) for image in RELEASED),
    ]


def breaking(buf: str, image: Path) -> tuple[str, ...]:
    """The workspace has two modules (ours and Google's) but a released image is one, so image is compared with
    image."""
    compare = (
        f'"{buf}" build protos -o - | "{buf}" breaking -#format=binpb --against "{image}" --config protos/buf.yaml'
    )
    return ("bash", "-o", "pipefail", "-c", compare)


def run(gate: Gate) -> Outcome:
    started = time.monotonic()
    done = subprocess.run(
        gate.command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return Outcome(gate, done.returncode == 0, time.monotonic() - started, done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only the gates whose name starts with one of these")
    names = tuple(parser.parse_args().names)
    chosen = [gate for gate in gates() if not names or gate.name.startswith(names)]
    if not chosen:
        sys.exit(f"no gate starts with {names}; available: {', '.join(gate.name for gate in gates())}")
    third_party()  # the Google protos that buf reads, from the installed package
    failed = 0
    with ThreadPoolExecutor(2) as pool:
        for outcome in pool.map(run, chosen):
            verdict = "ok    " if outcome.passed else "FAILED"
            print(f"{verdict}  {outcome.gate.name}  {outcome.seconds:.1f} s", flush=True)
            if not outcome.passed:
                failed += 1
                print(f"$ {' '.join(outcome.gate.command)}\n{outcome.output}", flush=True)
    if failed:
        sys.exit(f"{failed} of {len(chosen)} gates failed")


if __name__ == "__main__":
    main()
