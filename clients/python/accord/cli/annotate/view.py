"""Renders a task in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.columns import Columns
from rich.panel import Panel
from rich.text import Text

from accord.cli.render.output import clean, err
from accord.preference import v1 as preference_v1
from accord.types import v1 as types_v1

SIDE_BY_SIDE_COLUMNS = 110


def show_task(
    prompt: preference_v1.Prompt, answers: Sequence[preference_v1.Completion], answered: int, open_tasks: int
) -> None:
    """Shows the conversation, the answers numbered from 1 in the order given, and the progress."""
    console = err()
    console.rule(f"{answered} answered by you · {open_tasks} open", style="dim")
    for message in prompt.conversation.messages:
        console.print(Text(f"{message.role}: ", style="bold cyan").append(clean(message.content), style="default"))
    panels = [
        Panel(
            Text(clean(answer.text)) if answer.text.strip() else Text("(empty answer)", style="dim"),
            title=f"Answer {number}" if len(answers) > 1 else "Answer",
            title_align="left",
            subtitle="cut off at its limit" if answer.finish_reason == types_v1.FINISH_REASON_LENGTH else None,
            subtitle_align="left",
            box=box.ROUNDED,
        )
        for number, answer in enumerate(answers, start=1)
    ]
    if len(panels) == 2 and console.width >= SIDE_BY_SIDE_COLUMNS:
        console.print(Columns(panels, equal=True, expand=True, width=console.width // 2 - 2))
    else:
        for panel in panels:
            console.print(panel)
