"""Runs the checks against an engine, one after another."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from accord.channel import open_channel
from accord.conformance import checks as checks  # fills CHECKS
from accord.conformance.check import CHECKS, Check, Outcome
from accord.conformance.checks.sharing import take_lease
from accord.conformance.target import Reference, Target
from accord.conformance.verdict import NotApplicable, Unmet, Verdict
from accord.errors import AccordError, InvalidArgument
from accord.rollout import v1 as rollout_v1


def chosen(patterns: Sequence[str] = ()) -> list[Check]:
    """The checks whose name matches one of the patterns; all without patterns. InvalidArgument if none matches."""
    found = [one for one in CHECKS if not patterns or any(fnmatch(one.name, pattern) for pattern in patterns)]
    if not found:
        names = ", ".join(one.name for one in CHECKS)
        raise InvalidArgument.at("only", f"no check matches {', '.join(patterns)}; available: {names}")
    return found


def acceptance() -> list[str]:
    """The names of the checks that a replica must pass before it serves a run."""
    return [one.name for one in CHECKS if one.acceptance]


async def conformance(
    address: str,
    *,
    model: Path | None = None,
    other: Path | None = None,
    reference: Reference | None = None,
    tolerance: float = 0.02,
    seconds: float = 60.0,
    only: Sequence[str] = (),
    lease_token: str = "",
) -> AsyncIterator[Outcome]:
    """Yields the outcome of each check. Afterwards the engine's weights are `model`, if given. `lease_token`: of a
    lease that the caller holds; without it, the suite takes a lease.

    AccordError if the engine cannot be reached, does not load `model`, or is leased to another client.
    """
    selected = chosen(only)
    async with open_channel(address) as channel:
        stub = rollout_v1.RolloutServiceStub(channel)
        target = Target(stub, model, other, reference, tolerance, seconds, prefix=f"conformance-{uuid.uuid4().hex[:8]}")
        before = await target.status()
        target.lease_token = lease_token
        if not lease_token:
            await take_lease(target)
        try:
            if model is not None:
                await target.update(target.weights(model, before.version + 1 if before.ready else 0))
            for one in selected:
                yield await _outcome(one, target)
            if model is not None:
                await target.update(target.weights(model, (await target.status()).version + 1))
        finally:
            if target.lease_token and not lease_token:
                await stub.ReleaseLease(rollout_v1.ReleaseLeaseRequest(token=target.lease_token), timeout=seconds)


async def _outcome(one: Check, target: Target) -> Outcome:
    start = time.monotonic()
    verdict, detail = Verdict.met, ""
    try:
        async with asyncio.timeout(target.seconds * 4):
            await one.run(target)
    except Unmet as found:
        verdict, detail = Verdict.unmet, str(found)
    except NotApplicable as why:
        verdict, detail = Verdict.skipped, str(why)
    except AccordError as error:
        verdict, detail = Verdict.unmet, f"a call failed: {error.code.name} {error.reason}: {error.message}"
    except TimeoutError:
        verdict, detail = Verdict.unmet, f"did not end within {target.seconds * 4:g} s"
    return Outcome(one, verdict, detail, time.monotonic() - start)
