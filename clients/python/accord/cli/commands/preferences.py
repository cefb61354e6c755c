"""`accord preferences`: imports, exports, counts and assesses feedback."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from accord.cli.options import Format, Interrupted, options, run_async

app = typer.Typer(help="Import, export and assess prompts and feedback.", no_args_is_help=True)


def _known_layout(value: str) -> str:
    from accord import formats

    names = ["auto", *formats.layout_names()]
    if value not in names:
        raise typer.BadParameter(f"unknown format {value!r}; available: {', '.join(names)}")
    return value


def _layout(purpose: str, auto: str) -> Any:
    """The option `--format`: the name of an installed layout of accord.formats."""
    names = f"auto ({auto}), jsonl, trl, hh-rlhf, argilla, label-studio, parquet, or the name of a plug-in"
    return typer.Option("--format", "-f", metavar="NAME", callback=_known_layout, help=f"{purpose}: {names}.")


class Kind(StrEnum):
    """The kind of annotator."""

    human = "human"
    simulated = "simulated"
    model = "model"


class Form(StrEnum):
    """The form of the lines in an exported file; see accord.formats."""

    pairs = "pairs"
    rankings = "rankings"
    ratings = "ratings"
    prompts = "prompts"


class Style(StrEnum):
    """How texts are written."""

    text = "text"
    conversational = "conversational"


class Side(StrEnum):
    """A side of the split of prompts."""

    train = "train"
    heldout = "heldout"


@app.command("import")
def import_(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Files of pairs, rankings, ratings or prompts.")],
    source: Annotated[
        str, typer.Option("--source", "-s", help="Source of lines without one (default: the file's name).")
    ] = "",
    annotator: Annotated[str, typer.Option("--annotator", "-a", help="Annotator of lines without one.")] = "imported",
    kind: Annotated[Kind, typer.Option("--annotator-kind", help="Annotator kind of lines without one.")] = Kind.human,
    format: Annotated[str, _layout("Format of the files", "detected")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Import files, all or none: if a line is invalid, the error names it and nothing is stored."""
    given = {"source": source, "annotator": annotator, "annotator_kind": kind.value, "format": format}
    try:
        run_async(_import(options(context).state_dir, files, given, as_json))
    except Interrupted as interruption:
        raise Interrupted(
            "interrupted; the import was stored completely or not at all, and importing again adds no duplicates",
            interruption.exit_code,
        ) from None


async def _import(state_dir: Path, files: list[Path], given: dict[str, str], as_json: bool) -> None:
    from accord import formats
    from accord.cli.local.session import service_client
    from accord.cli.render.output import err, note, out, print_json
    from accord.cli.render.records import located

    # All files are read and checked before anything starts or is sent.
    parsed = []
    with err().status("Reading ..."):
        for path in files:
            parsed.append(formats.read(path, **{**given, "source": given["source"] or path.stem}))
    for file in parsed:
        note(f"{file.path}: {len(file.records)} {file.form.value} ({file.format})")
        if file.empty_items:
            note(f"  {file.empty_items} items without a judgement")
        for key, count in file.ignored_keys.most_common():
            note(f"  key {key!r} is ignored ({count} lines)")
    total = sum(len(file.records) for file in parsed)
    async with service_client(state_dir, "preference") as client:
        with err().status(f"Storing {total} records ..."), located(parsed):
            stored = await client.preferences.import_records(record for file in parsed for record in file.records)
    counts = {
        "records": total,
        "prompts": stored.prompts,
        "completions": stored.completions,
        "feedback": stored.feedback,
        "duplicates": stored.duplicates,
    }
    if as_json:
        print_json(counts)
    else:
        out().print(
            f"{total} records read; new: {stored.prompts} prompts, {stored.completions} answers, "
            f"{stored.feedback} judgements; {stored.duplicates} judgements existed already"
        )


@app.command("export")
def export(
    context: typer.Context,
    destination: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write; `-` for stdout.")],
    form: Annotated[
        Form | None, typer.Option("--form", help="What to export (default: the only form present).")
    ] = None,
    format: Annotated[str, _layout("Format to write", "jsonl")] = "auto",
    style: Annotated[Style, typer.Option("--style", help="conversational: lists of messages, as in TRL.")] = Style.text,
    sources: Annotated[list[str] | None, typer.Option("--source", "-s", help="Only this source. Repeatable.")] = None,
    split: Annotated[Side | None, typer.Option("--split", help="Only this side of the split of prompts.")] = None,
    snapshot: Annotated[
        str, typer.Option("--snapshot", help="Export the snapshot with this digest instead of the current records.")
    ] = "",
) -> None:
    """Export to a file that `accord preferences import` reads. The file is written completely or not at all."""
    layout = "jsonl" if format == "auto" else format
    if layout != "jsonl" and (str(destination) == "-" or style is not Style.text):
        raise typer.BadParameter(f"stdout and --style need jsonl, not {layout}", param_hint="--format")
    if snapshot and sources:
        raise typer.BadParameter("cannot be combined with --snapshot", param_hint="--source")
    run_async(_export(options(context).state_dir, destination, layout, form, style, sources or [], split, snapshot))


async def _export(
    state_dir: Path,
    destination: Path,
    layout: str,
    form: Form | None,
    style: Style,
    sources: list[str],
    split: Side | None,
    snapshot: str,
) -> None:
    import sys

    from accord import formats
    from accord.cli.local.session import service_client
    from accord.cli.render.output import err, note
    from accord.cli.render.records import chosen, records_of

    async with service_client(state_dir, "preference") as client:
        with err().status("Reading ..."):
            found = [
                formats.from_record(record)
                async for record in records_of(client.preferences, form is Form.prompts, sources, split, snapshot)
            ]
    records = chosen(found, form.value if form else None)
    if str(destination) == "-":
        for record in records:
            sys.stdout.write(formats.to_line(record, style=style.value) + "\n")
        return
    destination.parent.mkdir(parents=True, exist_ok=True)
    if layout == "jsonl":
        count = formats.write(destination, records, style=style.value)
    else:
        count = formats.layout_of(layout).write(destination, records)
    note(f"{destination}: {count} {'record' if count == 1 else 'records'} ({layout})")


@app.command("stats")
def stats(
    context: typer.Context,
    format: Annotated[Format, typer.Option("--format", "-f", help="Output format.")] = Format.table,
) -> None:
    """Count prompts, answers and feedback by source, split and kind of annotator."""
    run_async(_stats(options(context).state_dir, format))


async def _stats(state_dir: Path, format: Format) -> None:
    from accord.cli.local.session import service_client
    from accord.cli.render.output import out, print_json
    from accord.cli.render.records import stats_shape

    async with service_client(state_dir, "preference") as client:
        shape = stats_shape(await client.preferences.stats())
    if format is Format.json:
        print_json(shape)
        return
    from rich.table import Table

    totals = Table("what", show_header=False)
    totals.add_column(justify="right")
    for name, count in shape.items():
        if name != "feedback":
            totals.add_row(name.replace("_", " "), str(count))
    out().print(totals)
    if shape["feedback"]:
        rows = Table("source", "split", "annotators")
        rows.add_column("feedback", justify="right")
        for row in shape["feedback"]:
            rows.add_row(row["source"] or "(none)", row["split"], row["annotator_kind"], str(row["count"]))
        out().print(rows)


@app.command("quality")
def quality(
    context: typer.Context,
    queues: Annotated[
        list[str] | None,
        typer.Option("--queue", "-q", help="Only this queue; `demo/` means all queues of demo. Repeatable."),
    ] = None,
    sources: Annotated[list[str] | None, typer.Option("--source", "-s", help="Only this source. Repeatable.")] = None,
    window: Annotated[float, typer.Option("--window", min=1, help="Minutes per row of the drift table.")] = 1440,
    format: Annotated[Format, typer.Option("--format", "-f", help="Output format.")] = Format.table,
) -> None:
    """Show how well annotators agree with each other and with gold tasks, their speed, and drift."""
    run_async(_quality(options(context).state_dir, queues or [], sources or [], window, format))


async def _quality(state_dir: Path, queues: list[str], sources: list[str], window: float, format: Format) -> None:
    from accord.cli.local.session import service_client
    from accord.cli.render.output import out, print_json
    from accord.cli.render.people import quality_shape, quality_tables

    async with service_client(state_dir, "preference") as client:
        found = await client.annotators.quality(queues=queues, sources=sources, window_seconds=window * 60)
    shape = quality_shape(found)
    if format is Format.json:
        print_json(shape)
        return
    if not shape:
        out().print("No judgements yet.")
    for kind in shape:
        for table in quality_tables(kind):
            out().print(table)
