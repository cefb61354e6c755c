"""`accord annotate`: a person judges answers in the terminal, blind and in random order."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from accord.cli.options import options, run_async


def annotate(
    context: typer.Context,
    annotator: Annotated[
        str | None, typer.Option("--annotator", "-a", help="Who you are; kept with each answer (default: your login).")
    ] = None,
    queue: Annotated[str, typer.Option("--queue", "-q", help="Only this queue, such as `demo/iteration-1`.")] = "",
    count: Annotated[int | None, typer.Option("--count", min=1, help="Stop after so many answers.")] = None,
    judge: Annotated[
        str,
        typer.Option(
            "--judge", help="A language model judges: the base URL of an OpenAI-compatible endpoint, or models/NAME."
        ),
    ] = "",
    model: Annotated[str, typer.Option("--model", "-m", help="With --judge URL: the model's name there.")] = "",
    instructions: Annotated[str, typer.Option("--instructions", help="With --judge: what makes an answer good.")] = "",
    key_variable: Annotated[
        str, typer.Option("--key-variable", help="With --judge URL: the environment variable that holds its key.")
    ] = "",
) -> None:
    """Compare answers: 1 or 2 for the better one, t for a tie, s to skip, q to quit. Each is saved at once."""
    if judge:
        name = annotator or f"judge-{model or judge.removeprefix('models/')}"
        asked = Asked(judge, model, instructions, key_variable)
        run_async(_judge(options(context).state_dir, asked, name, queue, count))
        return
    if model or instructions or key_variable:
        raise typer.BadParameter("goes with --judge", param_hint="--model, --instructions, --key-variable")
    run_async(_annotate(options(context).state_dir, annotator or _login(), queue, count))


@dataclass(frozen=True)
class Asked:
    """Which language model judges, and by what."""

    judge: str
    model: str
    instructions: str
    key_variable: str


def _login() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise typer.BadParameter("this user has no name; say who you are", param_hint="--annotator") from None


async def _annotate(state_dir: Path, name: str, queue: str, count: int | None) -> None:
    from accord.cli.annotate.keys import Keys
    from accord.cli.annotate.session import annotate_tasks
    from accord.cli.local.session import service_client

    async with service_client(state_dir, "preference") as client, Keys() as keys:
        await annotate_tasks(client.preferences, keys, name, queue, count)


async def _judge(state_dir: Path, asked: Asked, name: str, queue: str, count: int | None) -> None:
    from accord.cli.local.session import open_session, service_client
    from accord.cli.render.output import note
    from accord.judge.annotating import Verdicts, judge_queue
    from accord.judge.endpoint import Endpoint
    from accord.judge.policy import policy_judge

    async def progress(done: Verdicts) -> None:
        note(f"{name}: {done.given} verdicts saved, {len(done.skipped)} unreadable")

    judging = partial(judge_queue, instructions=asked.instructions, count=count, progress=progress)
    if asked.judge.startswith("models/"):
        async with open_session(state_dir) as session:
            weights = (await session.client.models.get(asked.judge)).weights
            client = await session.services("preference", "rollout")
            async with policy_judge(client.rollout, weights, name) as policy:
                done = await judging(client.preferences, policy, name, queue)
    else:
        if not asked.model:
            raise typer.BadParameter("the endpoint needs the model's name", param_hint="--model")
        key = os.environ.get(asked.key_variable, "") if asked.key_variable else ""
        if asked.key_variable and not key:
            raise typer.BadParameter(f"{asked.key_variable} is not set", param_hint="--key-variable")
        endpoint = Endpoint(asked.judge, asked.model, key=key)
        async with service_client(state_dir, "preference") as client:
            done = await judging(client.preferences, endpoint, name, queue)
    note(f"{name} is done: {done.given} verdicts saved, {len(done.skipped)} tasks without a readable one")
