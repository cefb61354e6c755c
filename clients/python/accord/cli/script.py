"""The `accord` script. It runs without the extra `cli` too, to say that this extra is missing."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line, whose packages are not installed with the client alone."""
    try:
        from accord.cli import main as command_line
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        sys.exit("accord: the command line is not installed. Install it with: pip install 'accord-rlhf[cli]'")
    command_line.main()


if __name__ == "__main__":
    main()
