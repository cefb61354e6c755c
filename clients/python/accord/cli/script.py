"""The `accord` script. It also runs without the extra `cli`, to report that the extra is missing."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line. The client alone does not install the packages that it needs."""
    try:
        from accord.cli import main as command_line
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        sys.exit("accord: the command line is not installed. Install it with: pip install 'accord-rlhf[cli]'")
    command_line.main()


if __name__ == "__main__":
    main()
