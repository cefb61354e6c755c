"""Checks an algorithm against the promises of `Algorithm`. Exit code 1 if it fails a check."""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from typing import Any

from accord import plugins
from accord.conformance.verdict import Verdict
from accord.errors import AccordError
from accord_trainer.conformance.suite import conformance
from accord_trainer.trainings.training import GROUP


def algorithm_named(name: str) -> Any:
    """The class behind an entry point of group `accord.algorithms`, or behind MODULE:CLASS. InvalidArgument."""
    module, _, kind = name.partition(":")
    return getattr(import_module(module), kind) if kind else plugins.load(GROUP, name)


def option(text: str) -> tuple[str, Any]:
    """`k=v`; v is JSON, or a string if it is not valid JSON."""
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def main(arguments: list[str] | None = None) -> int:
    """Prints a table. Exit code 0 if all applicable checks are met, 1 if one is not, 2 for wrong usage."""
    parser = argparse.ArgumentParser("python -m accord_trainer.conformance", description=__doc__)
    parser.add_argument("algorithm", metavar="NAME", help="the name of an installed algorithm, or MODULE:CLASS")
    parser.add_argument(
        "--option",
        metavar="K=V",
        type=option,
        action="append",
        default=[],
        help="an option of the algorithm; repeatable",
    )
    parser.add_argument("--only", metavar="PATTERN", action="append", default=[], help="only these checks; repeatable")
    chosen = parser.parse_args(arguments)
    try:
        from rich.console import Console
        from rich.table import Column, Table
    except ModuleNotFoundError:
        print("error: rich is not installed. Install it with: pip install 'accord-rlhf[cli]'", file=sys.stderr)
        return 2
    table = Table(
        Column("check", no_wrap=True), "verdict", "seconds", "detail", title=f"The algorithm {chosen.algorithm}"
    )
    unmet = 0
    try:
        for outcome in conformance(algorithm_named(chosen.algorithm), dict(chosen.option), chosen.only):
            failed = outcome.verdict is Verdict.unmet
            unmet += failed
            detail = f"{outcome.detail}\nTo fix it: {outcome.check.fix}" if failed else outcome.detail
            table.add_row(outcome.check.name, outcome.verdict, f"{outcome.seconds:.1f}", detail)
    except (AccordError, ImportError, AttributeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    Console().print(table)
    return 1 if unmet else 0


if __name__ == "__main__":
    sys.exit(main())
