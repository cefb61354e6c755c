"""Print the requirements of some extras of this project, one per line, without the project itself.

    python scripts/requirements.py models trainer

An image installs them in a separate layer, which changes only with pyproject.toml, not with every line of code.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

OWN = re.compile(r"accord-rlhf\[(?P<extras>[^]]+)\]")


def requirements(project: Mapping[str, object], extras: Iterable[str]) -> list[str]:
    """The requirements of the project and of the extras, including nested extras. KeyError if an extra does not
    exist."""
    optional: Mapping[str, Sequence[str]] = project["optional-dependencies"]  # type: ignore[assignment]
    own: Sequence[str] = project["dependencies"]  # type: ignore[assignment]

    def expand(extra: str) -> Iterator[str]:
        for requirement in optional[extra]:
            match = OWN.fullmatch(requirement)
            if match is None:
                yield requirement
            else:
                for inner in match["extras"].split(","):
                    yield from expand(inner)

    return list(dict.fromkeys([*own, *(found for extra in extras for found in expand(extra))]))


def main() -> None:
    project = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())["project"]
    try:
        print("\n".join(requirements(project, sys.argv[1:])))
    except KeyError as error:
        sys.exit(f"no extra {error}; available: {', '.join(project['optional-dependencies'])}")


if __name__ == "__main__":
    main()
