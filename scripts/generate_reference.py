"""Generate docs/reference from the contracts and the code.

python scripts/generate_reference.py            write the pages
python scripts/generate_reference.py --check    exit 1 if a committed page differs from the generated one
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reference import algorithm_options, cli, errors, metrics, rpcs, run_file, settings

TARGET = Path(__file__).resolve().parent.parent / "docs" / "reference"
PAGES = {
    "cli": cli,
    "settings": settings,
    "metrics": metrics,
    "algorithm-options": algorithm_options,
    "run-file": run_file,
    "rpcs": rpcs,
    "errors": errors,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 on a difference")
    check = parser.parse_args().check
    stale = []
    for name, module in PAGES.items():
        path, text = TARGET / f"{name}.md", module.page()
        if path.is_file() and path.read_text() == text:
            continue
        stale.append(name)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if check and stale:
        sys.exit(f"docs/reference is not fresh: {', '.join(stale)}; run `make generate`")
    print("docs/reference is fresh" if check else f"wrote {len(stale)} pages")


if __name__ == "__main__":
    main()
