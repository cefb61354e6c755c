"""`accord conformance`: checks a rollout engine against the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from accord.cli.options import Format, run_async


def conformance(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="A service that implements accord.rollout.v1.")],
    model: Annotated[
        Path | None,
        typer.Option("--model", exists=True, file_okay=False, help="A model folder that the engine can load."),
    ] = None,
    other: Annotated[
        Path | None,
        typer.Option(
            "--other",
            exists=True,
            file_okay=False,
            help="Another model with the same tokenizer, to check weight updates.",
        ),
    ] = None,
    reference: Annotated[
        str,
        typer.Option(
            "--reference", help="How to recompute logprobs of --model: transformers, none or FILE.py:FUNCTION."
        ),
    ] = "none",
    tolerance: Annotated[float, typer.Option("--tolerance", help="Allowed difference of a logprob, nats.")] = 0.02,
    timeout: Annotated[float, typer.Option("--timeout", help="Deadline of each call, seconds.")] = 60.0,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Only checks with this name; `*` matches any text. Repeatable.")
    ] = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="Output format.")] = Format.table,
) -> None:
    """Check a rollout engine against the contract. Exit code 1 if a check fails.

    With --model, the engine's weights change, so use an engine that serves no other client. The engine must see the
    model folders at the same paths.
    """
    if run_async(_conformance(address, model, other, reference, tolerance, timeout, only or [], format)):
        raise typer.Exit(1)


async def _conformance(
    address: str,
    model: Path | None,
    other: Path | None,
    reference: str,
    tolerance: float,
    timeout: float,
    only: list[str],
    format: Format,
) -> int:
    """Returns the number of failed checks."""
    from accord.cli.render.output import note, out, print_json
    from accord.conformance.check import Outcome
    from accord.conformance.reference import reference_named
    from accord.conformance.suite import conformance as suite
    from accord.conformance.verdict import Verdict

    outcomes: list[Outcome] = []
    async for outcome in suite(
        address,
        model=model,
        other=other,
        reference=reference_named(reference),
        tolerance=tolerance,
        seconds=timeout,
        only=only,
    ):
        outcomes.append(outcome)
        if format is Format.table:
            note(f"{outcome.verdict:8} {outcome.check.name}  {outcome.seconds:.1f} s")
    unmet = sum(outcome.verdict is Verdict.unmet for outcome in outcomes)
    if format is Format.json:
        print_json([_shape(outcome) for outcome in outcomes])
        return unmet
    from rich.table import Table
    from rich.text import Text

    table = Table("check", "", "requirement of the contract, or problem")
    for outcome in outcomes:
        said = outcome.check.demands if outcome.verdict is Verdict.met else outcome.detail
        if outcome.verdict is Verdict.unmet:
            said += f"\n-> {outcome.check.fix}"
        table.add_row(outcome.check.name, outcome.verdict, Text(said))
    out().print(table)
    counts = {verdict: sum(outcome.verdict is verdict for outcome in outcomes) for verdict in Verdict}
    out().print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return unmet


def _shape(outcome: Any) -> dict[str, Any]:
    """A row for programs: `check, verdict, detail, demands, fix, seconds`."""
    return {
        "check": outcome.check.name,
        "verdict": str(outcome.verdict),
        "detail": outcome.detail,
        "demands": outcome.check.demands,
        "fix": outcome.check.fix,
        "seconds": round(outcome.seconds, 3),
    }
