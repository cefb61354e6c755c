"""`accord annotate`: judge answers in the terminal, blind and in random order, or let a language model judge."""

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
        str | None,
        typer.Option("--annotator", "-a", help="Your name, recorded with each judgement (default: your login)."),
    ] = None,
    queue: Annotated[
        str, typer.Option("--queue", "-q", help="Only tasks of this queue, such as `demo/iteration-1`.")
    ] = "",
    count: Annotated[int | None, typer.Option("--count", min=1, help="Stop after this number of judgements.")] = None,
    judge: Annotated[
        str,
        typer.Option(
            "--judge", help="Let a language model judge: the base URL of an OpenAI-compatible endpoint, or models/NAME."
        ),
    ] = "",
    model: Annotated[str, typer.Option("--model", "-m", help="With --judge URL: the name of the model.")] = "",
    instructions: Annotated[
        str, typer.Option("--instructions", help="With --judge: what makes an answer better.")
    ] = "",
    key_variable: Annotated[
        str, typer.Option("--key-variable", help="With --judge URL: the environment variable with the API key.")
    ] = "",
) -> None:
    """Compare answers: 1 or 2 for the better one, t for a tie, s to skip, q to quit. Answers are saved immediately."""
    if judge:
        name = annotator or f"judge-{model or judge.removeprefix('models/')}"
        source = JudgeModel(judge, model, instructions, key_variable)
        run_async(_judge(options(context).state_dir, source, name, queue, count))
        return
    if model or instructions or key_variable:
        raise typer.BadParameter("needs --judge", param_hint="--model, --instructions, --key-variable")
    run_async(_annotate(options(context).state_dir, annotator or _login(), queue, count))


@dataclass(frozen=True)
class JudgeModel:
    """Which language model judges, and by which instructions."""

    judge: str
    model: str
    instructions: str
    key_variable: str


def _login() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise typer.BadParameter("this user has no login name; give your name", param_hint="--annotator") from None


async def _annotate(state_dir: Path, name: str, queue: str, count: int | None) -> None:
    from accord.cli.annotate.keys import Keys
    from accord.cli.annotate.session import annotate_tasks
    from accord.cli.local.session import service_client

    async with service_client(state_dir, "preference") as client, Keys() as keys:
        await annotate_tasks(client.preferences, keys, name, queue, count)


async def _judge(state_dir: Path, source: JudgeModel, name: str, queue: str, count: int | None) -> None:
    from accord.cli.local.session import open_session, service_client
    from accord.cli.render.output import note
    from accord.judge.annotating import Verdicts, judge_queue
    from accord.judge.endpoint import Endpoint
    from accord.judge.policy import policy_judge

    async def progress(done: Verdicts) -> None:
        note(f"{name}: judgements saved: {done.given}; unreadable answers: {len(done.skipped)}")

    judging = partial(judge_queue, instructions=source.instructions, count=count, progress=progress)
    if source.judge.startswith("models/"):
        async with open_session(state_dir) as session:
            weights = (await session.client.models.get(source.judge)).weights
            client = await session.services("preference", "rollout")
            async with policy_judge(client.rollout, weights, name) as policy:
                done = await judging(client.preferences, policy, name, queue)
    else:
        if not source.model:
            raise typer.BadParameter("required with the URL of an endpoint", param_hint="--model")
        key = os.environ.get(source.key_variable, "") if source.key_variable else ""
        if source.key_variable and not key:
            raise typer.BadParameter(f"{source.key_variable} is not set", param_hint="--key-variable")
        endpoint = Endpoint(source.judge, source.model, key=key)
        async with service_client(state_dir, "preference") as client:
            done = await judging(client.preferences, endpoint, name, queue)
    note(f"{name} is done. Judgements saved: {done.given}; tasks without a readable answer: {len(done.skipped)}")
