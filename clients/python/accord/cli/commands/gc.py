"""`accord gc`: deletes unreferenced weights and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from accord.cli.options import Format, options, run_async


def gc(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be deleted.")] = False,
    format: Annotated[Format, typer.Option("--format", "-f", help="Output format.")] = Format.table,
) -> None:
    """Delete weights and checkpoints that no run, snapshot or promoted model references."""
    run_async(_gc(options(context).state_dir, dry_run, format))


async def _gc(state_dir: Path, dry_run: bool, format: Format) -> None:
    from accord.cli.local.session import open_session
    from accord.cli.render.output import out, print_json

    async with open_session(state_dir) as session:
        answer = await session.client.runs.collect_garbage(dry_run)
    if format is Format.json:
        print_json({"dry_run": dry_run, "freed_bytes": answer.freed_bytes, "freed": list(answer.freed)})
        return
    for name in answer.freed:
        out().print(name, markup=False, soft_wrap=True)
    verb = "would be freed" if dry_run else "freed"
    out().print(
        f"{len(answer.freed)} {'item' if len(answer.freed) == 1 else 'items'}, {size(answer.freed_bytes)} {verb}"
    )


def size(count: int) -> str:
    """A number of bytes for people: `512 B`, `1.5 KiB`, `270.0 MiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
