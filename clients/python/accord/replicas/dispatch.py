"""One `generate` over several rollout services: assigns samples to replicas, and reassigns those of a failed one."""

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

# Reasons for which another replica, or the same one later, may still serve the request.
_RETRYABLE = ("NO_WEIGHTS", "VERSION_MISMATCH", "LEASE_HELD", "OVERLOADED")
Prompts = Sequence[rollout_v1.Prompt | types_v1.Conversation | str]


class Dispatch:
    """The samples of one call. Each index is yielded exactly once, whatever fails."""

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
        """`options`: arguments of each replica's `generate`; `tokens`: the maximum of a sample; `end`: the deadline,
        seconds of the monotonic clock; `sessions`: one for each prompt, or none."""
        self._pool = pool
        self._prompts = prompts
        self._options = options
        self._n = n
        self._tokens = tokens
        self._end = end
        self._sessions = sessions
        # When the first replica failed since the last sample arrived.
        self._failing_since: float | None = None
        # Whether some index may be assigned to two replicas.
        self._hedged = False
        # The assignments in progress, and their tasks.
        self._assignments: list[Assignment] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._arrived: asyncio.Queue[rollout_v1.GenerateResponse | Assignment | BaseException] = asyncio.Queue()

    async def responses(self, missing: set[int]) -> AsyncGenerator[rollout_v1.GenerateResponse, None]:
        """Yields one response for each index of `missing`. Closing the iterator cancels the samples in progress."""
        try:
            await self._assign(missing, None)
            while missing:
                event = await self._next()
                if event is None:
                    self._hedge()
                    continue
                if isinstance(event, BaseException):
                    raise event
                if isinstance(event, Assignment):
                    assigned = {index for one in self._assignments for index in one.left}
                    if unassigned := (event.left & missing) - assigned:
                        await self._assign(unassigned, event.error)
                    continue
                self._failing_since = None
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
        """Removes the index from all assignments, and cancels those that have none left."""
        for assignment in self._assignments if self._hedged else ():
            assignment.done(index)
            if not assignment.left and assignment.task is not None:
                assignment.task.cancel()

    async def _assign(self, indices: set[int], error: AccordError | None) -> None:
        """Assigns each prompt's indices to the replica with the fewest outstanding tokens; waits while all rest."""
        if error is not None and self._failing_since is None:
            self._failing_since = time.monotonic()
        while not (available := [one for one in self._pool.members if one.available()]):
            resting = [one.resting_until for one in self._pool.members if not one.leaving]
            due = min(resting, default=time.monotonic() + self._pool.rest_seconds)
            if due >= self._give_up_at():
                raise error or Unavailable("No rollout replica is available", reason="NO_REPLICA")
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        self._start(indices, available)

    def _start(self, indices: set[int], available: Sequence[Replica]) -> None:
        """Assigns the indices to `available` replicas and starts to generate."""
        assignments: dict[str, Assignment] = {}
        for prompt, mine in groupby(sorted(indices), lambda index: index // self._n):
            replica = choose(available, self._sessions[prompt] if self._sessions else "")
            assignments.setdefault(replica.address, Assignment(replica, set(), self._tokens)).add(mine)
        for assignment in assignments.values():
            self._assignments.append(assignment)
            task = assignment.task = asyncio.create_task(self._generate(assignment))
            task.add_done_callback(partial(self._ended, assignment))
            for tasks in (self._tasks, assignment.replica.tasks):
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    def _hedge(self) -> None:
        """Assigns the rest of a silent assignment to a second replica too, once. Only to one with fewer outstanding
        tokens: if all are slow, more work would make them slower."""
        now = time.monotonic()
        for silent in [one for one in self._assignments if not one.hedged and self._due(one) <= now]:
            silent.heard = now  # if no other replica is available, it is checked again later
            assigned = [one.replica for one in self._assignments if one.left & silent.left]
            load = silent.replica.outstanding_tokens
            available = [
                one
                for one in self._pool.members
                if one.available() and one not in assigned and one.outstanding_tokens < load
            ]
            if available:
                silent.hedged = self._hedged = True
                self._pool.hedged_samples += len(silent.left)
                self._start(set(silent.left), available)

    def _due(self, assignment: Assignment) -> float:
        """When an assignment will have been silent for too long."""
        return assignment.heard + (self._pool.hedge_seconds if self._pool.hedge_seconds is not None else math.inf)

    def _give_up_at(self) -> float:
        """When the call ends if no replica serves."""
        if self._pool.patience_seconds is None:
            return self._end
        if self._failing_since is None:
            self._failing_since = time.monotonic()
        return min(self._end, self._failing_since + self._pool.patience_seconds)

    async def _generate(self, assignment: Assignment) -> None:
        """Requests an assignment from its replica; passes on an error that ends the call."""
        replica, indices = assignment.replica, sorted(assignment.left)
        everything = len(indices) == len(self._prompts) * self._n
        try:
            stream = replica.rollout.generate(
                self._prompts,
                indices=() if everything else indices,
                lease_token=replica.lease_token,
                timeout=max(0.001, self._end - time.monotonic()),
                **self._options,  # type: ignore[arg-type]
            )
            async with aclosing(stream) as responses:  # type: ignore[type-var]
                async for response in responses:
                    assignment.done(_index(response))
                    assignment.heard = time.monotonic()
                    self._arrived.put_nowait(response)
        except (Unavailable, FailedPrecondition, ResourceExhausted) as error:
            if not isinstance(error, Unavailable) and error.reason not in _RETRYABLE:
                self._arrived.put_nowait(error)
                return
            assignment.error = self._pool.lost(replica, error)
        except AccordError as error:
            self._arrived.put_nowait(error)

    def _ended(self, assignment: Assignment, _task: asyncio.Task[None]) -> None:
        """Runs however the task ended, even if it never started. Queues a failed assignment for reassignment."""
        replica = assignment.replica
        self._assignments.remove(assignment)
        replica.outstanding_tokens -= len(assignment.left) * assignment.tokens
        if assignment.error is None and assignment.left and replica.removed:
            message = f"The rollout replica at {replica.address} was removed"
            assignment.error = Unavailable(message, reason="REPLICA_REMOVED")
        if assignment.error is not None:
            self._arrived.put_nowait(assignment)

    async def _next(self) -> rollout_v1.GenerateResponse | Assignment | BaseException | None:
        """The next event; None if an assignment has been silent for too long."""
        if not self._arrived.empty():
            return self._arrived.get_nowait()
        due = min((self._due(one) for one in self._assignments if not one.hedged), default=self._end)
        try:
            return await asyncio.wait_for(self._arrived.get(), max(0.001, min(due, self._end) - time.monotonic()))
        except TimeoutError:
            if due < self._end:
                return None
            raise DeadlineExceeded("The deadline passed before all samples were generated") from None


def _index(response: rollout_v1.GenerateResponse) -> int:
    return response.sample.index if response.HasField("sample") else response.failure.index
