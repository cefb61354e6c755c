"""One `generate` over several rollout services: who draws what, and what is asked again when somebody does not."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from itertools import groupby

from accord.errors import (
    AccordError,
    DeadlineExceeded,
    FailedPrecondition,
    ResourceExhausted,
    Unavailable,
)
from accord.replicas.replica import Assignment, Pool, Replica, choose
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1

# What another replica, or the same one later, may answer otherwise.
_ELSEWHERE = ("NO_WEIGHTS", "VERSION_MISMATCH", "LEASE_HELD", "OVERLOADED")
Prompts = Sequence[rollout_v1.Prompt | types_v1.Conversation | str]


class Dispatch:
    """The samples of one call. Whatever happens on the way, each index is yielded once."""

    def __init__(
        self,
        pool: Pool,
        prompts: Prompts,
        options: Mapping[str, object],
        *,
        n: int,
        tokens: int,
        end: float,
        sessions: Sequence[str] = (),
    ) -> None:
        """`options`: what every replica is asked with; `tokens`: the most of a sample; `end`: the deadline, seconds of
        the monotonic clock; `sessions`: one for each prompt, or none."""
        self._pool = pool
        self._prompts = prompts
        self._options = options
        self._n = n
        self._tokens = tokens
        self._end = end
        self._sessions = sessions
        # When the last replica was lost since the last sample came.
        self._troubled_since: float | None = None
        # Whether some index may be owed by two.
        self._hedged = False
        # Those that are being drawn now, and the tasks that do.
        self._shares: list[Assignment] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._arrived: asyncio.Queue[rollout_v1.GenerateResponse | Assignment | BaseException] = asyncio.Queue()

    async def responses(self, missing: set[int]) -> AsyncGenerator[rollout_v1.GenerateResponse, None]:
        """One for each index of `missing`; closing it ends what is being drawn."""
        try:
            await self._hand_out(missing, None)
            while missing:
                event = await self._next()
                if event is None:
                    self._hedge()
                    continue
                if isinstance(event, BaseException):
                    raise event
                if isinstance(event, Assignment):
                    drawn = {index for share in self._shares for index in share.left}
                    if owed := (event.left & missing) - drawn:
                        await self._hand_out(owed, event.error)
                    continue
                self._troubled_since = None
                index = _index(event)
                if index in missing:
                    missing.discard(index)
                    self._answered(index)
                    yield event
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _answered(self, index: int) -> None:
        """Nobody owes this index any more; a replica that owes nothing at all is let go."""
        for share in self._shares if self._hedged else ():
            share.done(index)
            if not share.left and share.task is not None:
                share.task.cancel()

    async def _hand_out(self, indices: set[int], error: AccordError | None) -> None:
        """Gives each prompt's indices to the replica that owes the fewest tokens; waits where all rest."""
        if error is not None and self._troubled_since is None:
            self._troubled_since = time.monotonic()
        while not (able := [one for one in self._pool.members if one.takes_work()]):
            resting = [one.resting_until for one in self._pool.members if not one.leaving]
            due = min(resting, default=time.monotonic() + self._pool.rest_seconds)
            if due >= self._most():
                raise error or Unavailable("no replica serves", reason="NO_REPLICA")
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        self._begin(indices, able)

    def _begin(self, indices: set[int], able: Sequence[Replica]) -> None:
        """Asks replicas of `able` for the indices."""
        shares: dict[str, Assignment] = {}
        for prompt, mine in groupby(sorted(indices), lambda index: index // self._n):
            replica = choose(able, self._sessions[prompt] if self._sessions else "")
            shares.setdefault(replica.address, Assignment(replica, set(), self._tokens)).add(mine)
        for share in shares.values():
            self._shares.append(share)
            task = share.task = asyncio.create_task(self._draw(share))
            task.add_done_callback(partial(self._ended, share))
            for kept in (self._tasks, share.replica.work):
                kept.add(task)
                task.add_done_callback(kept.discard)

    def _hedge(self) -> None:
        """Of what has brought nothing for too long another replica is asked too, once. None that owes as much itself:
        where all are slow, more work for them would make them slower."""
        now = time.monotonic()
        for share in [one for one in self._shares if not one.hedged and self._due(one) <= now]:
            share.heard = now  # where nobody can help now, it is looked at again
            asked = [one.replica for one in self._shares if one.left & share.left]
            load = share.replica.outstanding_tokens
            able = [
                one
                for one in self._pool.members
                if one.takes_work() and one not in asked and one.outstanding_tokens < load
            ]
            if able:
                share.hedged = self._hedged = True
                self._pool.hedged_samples += len(share.left)
                self._begin(set(share.left), able)

    def _due(self, share: Assignment) -> float:
        """When a share has been silent for too long."""
        return share.heard + (self._pool.hedge_seconds if self._pool.hedge_seconds is not None else math.inf)

    def _most(self) -> float:
        """When a call that nobody serves ends."""
        if self._pool.patience_seconds is None:
            return self._end
        if self._troubled_since is None:
            self._troubled_since = time.monotonic()
        return min(self._end, self._troubled_since + self._pool.patience_seconds)

    async def _draw(self, share: Assignment) -> None:
        """Asks a replica for its share; tells the error that ends the call."""
        replica, asked = share.replica, sorted(share.left)
        everything = len(asked) == len(self._prompts) * self._n
        try:
            stream = replica.rollout.generate(
                self._prompts,
                indices=() if everything else asked,
                lease_token=replica.lease_token,
                timeout=max(0.001, self._end - time.monotonic()),
                **self._options,  # type: ignore[arg-type]
            )
            async with aclosing(stream) as responses:  # type: ignore[type-var]
                async for response in responses:
                    share.done(_index(response))
                    share.heard = time.monotonic()
                    self._arrived.put_nowait(response)
        except (Unavailable, FailedPrecondition, ResourceExhausted) as error:
            if not isinstance(error, Unavailable) and error.reason not in _ELSEWHERE:
                self._arrived.put_nowait(error)
                return
            share.error = self._pool.lost(replica, error)
        except AccordError as error:
            self._arrived.put_nowait(error)

    def _ended(self, share: Assignment, _task: asyncio.Task[None]) -> None:
        """However it ended, also before it began: tells what is still owed."""
        replica = share.replica
        self._shares.remove(share)
        replica.outstanding_tokens -= len(share.left) * share.tokens
        if share.error is None and share.left and replica.gone:
            share.error = Unavailable(f"the replica at {replica.address} was taken out", reason="REPLICA_REMOVED")
        if share.error is not None:
            self._arrived.put_nowait(share)

    async def _next(self) -> rollout_v1.GenerateResponse | Assignment | BaseException | None:
        """What happens next; None: a share has been silent for too long."""
        if not self._arrived.empty():
            return self._arrived.get_nowait()
        due = min((self._due(share) for share in self._shares if not share.hedged), default=self._end)
        try:
            return await asyncio.wait_for(self._arrived.get(), max(0.001, min(due, self._end) - time.monotonic()))
        except TimeoutError:
            if due < self._end:
                return None
            raise DeadlineExceeded("the samples were not all there when the deadline passed") from None


def _index(response: rollout_v1.GenerateResponse) -> int:
    return response.sample.index if response.HasField("sample") else response.failure.index
