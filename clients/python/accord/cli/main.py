"""The `accord` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from accord.cli.commands import (
    annotate,
    annotators,
    conformance,
    console,
    gc,
    models,
    preferences,
    report,
    run,
    runs,
    sample,
    trace,
    up,
)
from accord.cli.options import Interrupted, Options

app = typer.Typer(
    name="accord",
    help="Align a language model with human preferences: start services, run the RLHF loop, annotate, inspect results.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(up.up)
app.command("run")(run.run)
app.add_typer(runs.app, name="runs")
app.add_typer(preferences.app, name="preferences")
app.command("annotate")(annotate.annotate)
app.add_typer(console.app, name="console")
app.add_typer(annotators.app, name="annotators")
app.command("sample")(sample.sample)
app.add_typer(models.app, name="models")
app.add_typer(trace.app, name="trace")
app.command("report")(report.report)
app.command("gc")(gc.gc)
app.command("conformance")(conformance.conformance)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"accord {version('accord-rlhf')}")
        raise typer.Exit


@app.callback()
def main_options(
    context: typer.Context,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            "--state-dir",
            envvar="ACCORD_STATE_DIR",
            help="The state folder: services, runs, models (default: .accord).",
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Global options come before the command: `accord --state-dir DIR runs list`."""
    # Services may run in a different working directory, so the path must be absolute.
    context.obj = Options((state_dir or Path(".accord")).absolute(), debug)


def main() -> None:
    """The entry point. Exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted. Errors are one line."""
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit code."""
    try:
        app(args=list(arguments), prog_name="accord")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(bool(done.code))
    except Interrupted as interruption:
        print(f"\naccord: {interruption}", file=sys.stderr)
        return interruption.exit_code
    except KeyboardInterrupt:
        print("\naccord: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has closed the pipe. Without this, Python would report the error again at exit.
        sys.stdout = None
        return 141
    except Exception as error:  # the outermost frame turns every error into one line and an exit code
        if "--debug" in arguments:
            raise
        from accord.cli.render.failures import explain

        print(f"accord: {explain(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    main()
