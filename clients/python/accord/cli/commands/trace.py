"""`accord trace`: lineage of models, answers, prompts, snapshots and annotators."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from accord.cli.options import AnnotatorKind, Format, options, run_async

app = typer.Typer(
    help="Trace lineage: which people, prompts and weights produced a model, "
    "or which models a person or prompt influenced.",
    no_args_is_help=True,
)

Printed = Annotated[Format, typer.Option("--format", "-f", help="Output format.")]


@app.command("model")
def model(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A registered model, or the beginning of a weights digest.")
    ],
    format: Printed = Format.table,
) -> None:
    """Show which iterations, reward models, weights, prompts and people produced a model."""
    run_async(_model(options(context).state_dir, name, format))


@app.command("answer")
def answer(
    context: typer.Context,
    completion_id: Annotated[str, typer.Argument(metavar="ID", help="The answer's id in the preference service.")],
    format: Printed = Format.table,
) -> None:
    """Show which weights generated an answer, their lineage, and which models learned from the answer."""
    run_async(_answer(options(context).state_dir, completion_id, format))


@app.command("annotator")
def annotator(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="ANNOTATOR", help="The annotator's id.")],
    kind: Annotated[AnnotatorKind, typer.Option("--kind", "-k", help="The kind of annotator.")] = AnnotatorKind.human,
    format: Printed = Format.table,
) -> None:
    """Show which snapshots contain an annotator's feedback, and which models learned from it."""
    run_async(_uses(options(context).state_dir, {"annotator": (name, kind)}, format))


@app.command("prompt")
def prompt(
    context: typer.Context,
    prompt_id: Annotated[str, typer.Argument(metavar="ID", help="The prompt's id.")],
    format: Printed = Format.table,
) -> None:
    """Show which snapshots contain a prompt, and which models learned from it."""
    run_async(_uses(options(context).state_dir, {"prompt_id": prompt_id}, format))


@app.command("snapshot")
def snapshot(
    context: typer.Context,
    digest: Annotated[str, typer.Argument(metavar="DIGEST", help="The snapshot's full digest.")],
    format: Printed = Format.table,
) -> None:
    """Show which people and weights a snapshot comes from, and which models learned from it."""
    run_async(_snapshot(options(context).state_dir, digest, format))


async def _model(state_dir: Path, name: str, format: Format) -> None:
    from accord.cli.local.session import open_session
    from accord.cli.render.lineage import answers_table, people_table, steps_table
    from accord.cli.render.output import out, print_json

    async with open_session(state_dir) as session:
        client = await session.services("preference")
        found = await _lineage(client, name)
    if format is Format.json:
        print_json(found)
        return
    if not found["steps"]:
        out().print(f"{name} is a base model; it was not trained here (digest {found['base']}).")
        return
    out().print(steps_table(found["steps"]))
    out().print(f"Base model: {found['base'] or 'unknown'}.")
    for origins in found["snapshots"]:
        out().print(people_table(origins))
        out().print(answers_table(origins))


async def _lineage(client: Any, name: str) -> dict[str, Any]:
    """`steps`, `base`, and the origins of the preference snapshots of these steps."""
    from accord.cli.render.lineage import origins_shape, step_shape
    from accord.errors import InvalidArgument, NotFound

    try:
        lineage = await client.models.lineage(name)
    except NotFound as error:
        try:
            lineage = await client.models.lineage(weights_digest=name)
        except (NotFound, InvalidArgument):
            raise error from None
    steps = [step_shape(step) for step in lineage.steps]
    digests = dict.fromkeys(step["preference_snapshot"] for step in steps if step["preference_snapshot"])
    origins = [origins_shape(await client.preferences.snapshot_origins(digest)) for digest in digests]
    return {"steps": steps, "base": lineage.base.digest or None, "snapshots": origins}


async def _answer(state_dir: Path, completion_id: str, format: Format) -> None:
    from accord.cli.local.session import open_session
    from accord.cli.render.lineage import learned_from, steps_table, trained_shape, trained_table, use_shape
    from accord.cli.render.output import clean, out, print_json
    from accord.errors import NotFound

    async with open_session(state_dir) as session:
        client = await session.services("preference")
        found = await client.preferences.completion(completion_id)
        origin = found.completion.origin
        made: dict[str, Any] = {"steps": [], "base": None, "snapshots": []}
        if origin.weights_digest:
            try:
                made = await _lineage(client, origin.weights_digest)
            except NotFound:
                made["base"] = origin.weights_digest
        uses = await client.preferences.snapshot_uses(completion_id=completion_id)
        models = await learned_from(client, uses)
    shape = {
        "completion_id": completion_id,
        "prompt_id": found.prompt.prompt_id,
        "text": found.completion.text,
        "run_id": origin.run_id or None,
        "iteration": origin.iteration,
        "weights_version": origin.weights_version,
        "weights_digest": origin.weights_digest or None,
        "engine": origin.engine or None,
        "seed": origin.seed,
        "made_by": made,
        "snapshots": [use_shape(use) for use in uses],
        "learnt_from_it": [trained_shape(model) for model in models],
    }
    if format is Format.json:
        print_json(shape)
        return
    out().print(clean(found.completion.text), markup=False)
    if not origin.weights_digest:
        out().print("Imported: it was not generated here.")
    else:
        on = f" on the engine {clean(origin.engine)}" if origin.engine else ""
        by = f"by weights {origin.weights_digest}{on}"
        out().print(f"Generated in {origin.run_id}, iteration {origin.iteration}, {by}.")
        out().print(steps_table(made["steps"]) if made["steps"] else "These are the weights of the base model.")
    out().print(trained_table(models) if models else "No model learned from it.")


async def _uses(state_dir: Path, subject: dict[str, Any], format: Format) -> None:
    from accord.cli.local.session import open_session
    from accord.cli.render.lineage import learned_from, trained_shape, trained_table, use_shape
    from accord.cli.render.output import out, print_json
    from accord.cli.render.people import annotator_of, profile_shape

    async with open_session(state_dir) as session:
        client = await session.services("preference")
        shape: dict[str, Any] = {}
        if "annotator" in subject:
            who = annotator_of(*subject["annotator"])
            shape["annotator"] = profile_shape(await client.annotators.get(who))
            uses = await client.preferences.snapshot_uses(annotator=who)
        else:
            uses = await client.preferences.snapshot_uses(prompt_id=subject["prompt_id"])
        models = await learned_from(client, uses)
    shape |= {"snapshots": [use_shape(use) for use in uses], "models": [trained_shape(model) for model in models]}
    if format is Format.json:
        print_json(shape)
        return
    for use in shape["snapshots"]:
        out().print(f"{use['records']} records in snapshot {use['digest']} of {use['create_time']}")
    out().print(trained_table(models) if models else "No model learned from it.")


async def _snapshot(state_dir: Path, digest: str, format: Format) -> None:
    from accord.cli.local.session import open_session
    from accord.cli.render.lineage import answers_table, origins_shape, people_table, trained_shape, trained_table
    from accord.cli.render.output import out, print_json

    async with open_session(state_dir) as session:
        client = await session.services("preference")
        shape = origins_shape(await client.preferences.snapshot_origins(digest))
        models = await client.models.trained_on([digest])
    if format is Format.json:
        print_json({**shape, "models": [trained_shape(model) for model in models]})
        return
    out().print(people_table(shape))
    out().print(answers_table(shape))
    out().print(trained_table(models) if models else "No model learned from it.")
