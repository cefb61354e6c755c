"""A console in front of a real preference service, and what tests do with both all the time."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accord
from accord.conversations import conversation
from accord.preference import v1 as preference_v1
from accord.types import v1 as types_v1
from accord_console.serving import serving as serving_console
from accord_console.settings import ConsoleSettings
from accord_console.web import Console
from accord_preference.service import build
from accord_preference.settings import PreferenceSettings
from accord_runtime.serving.server import serving

_numbers = itertools.count()


@dataclass
class Site:
    """A served console at `url`, and a client of the services behind it."""

    url: str
    console: Console
    client: accord.Client

    def link(self, name: str = "ann", queue: str = "") -> str:
        """A new invite link."""
        invite = self.console.invites.invite(name, queue)
        return f"{self.url}/i/{self.console.sessions.link_token(invite)}"

    @property
    def operator_link(self) -> str:
        """The link that opens the operator's pages."""
        return f"{self.url}/operator?token={self.console.sessions.operator_token}"

    async def task(
        self,
        answers: Sequence[str],
        prompt: str | preference_v1.Prompt = "",
        *,
        kind: str = "comparison",
        cut_off: Sequence[str] = (),
        **fields: Any,
    ) -> preference_v1.Task:
        """A new task about a prompt and answers to it, some of which were cut off."""
        if isinstance(prompt, str):
            text = prompt or f"question {next(_numbers)}"
            new = preference_v1.Prompt(conversation=conversation(text))
            prompt = (await self.client.preferences.create_prompts([new]))[0]
        completions = await self.client.preferences.create_completions(
            [
                preference_v1.Completion(
                    prompt_id=prompt.prompt_id,
                    text=text,
                    finish_reason=types_v1.FINISH_REASON_LENGTH if text in cut_off else types_v1.FINISH_REASON_STOP,
                )
                for text in answers
            ]
        )
        task = preference_v1.Task(
            kind=preference_v1.TaskKind.Value(f"TASK_KIND_{kind.upper()}"),
            prompt_id=prompt.prompt_id,
            completion_ids=[completion.completion_id for completion in completions],
            **fields,
        )
        return (await self.client.preferences.create_tasks([task]))[0]

    async def saved(self) -> list[preference_v1.Record]:
        """All feedback in force with what it is about."""
        records = self.client.preferences.export_records(preference_v1.SNAPSHOT_KIND_PREFERENCES)
        return [record async for record in records]


@asynccontextmanager
async def console_site(
    state_dir: Path,
    controller: str = "",
    rollout: str = "",
    clock: Callable[[], float] = time.time,
    **settings: Any,
) -> AsyncIterator[Site]:
    """A console with a preference service of its own, whose clock is `clock`, and other services at the addresses
    given."""
    async with AsyncExitStack() as stack:
        chosen = PreferenceSettings(state_dir=state_dir)
        preference = await stack.enter_async_context(serving(await build(chosen, clock), chosen))
        told = {"state_dir": state_dir, "port": 0, "drain_seconds": 2, "preference_address": preference, **settings}
        own = ConsoleSettings(**told, controller_address=controller, rollout_address=rollout)
        url, console = await stack.enter_async_context(serving_console(own))
        client = accord.Client(preference=preference, controller=controller or None, rollout=rollout or None)
        yield Site(url, console, await stack.enter_async_context(client))
