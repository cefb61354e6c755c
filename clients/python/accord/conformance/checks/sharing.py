"""Concurrent callers, cancelled calls, overload and leases."""

from __future__ import annotations

from accord.conformance.check import check
from accord.conformance.target import PROMPTS, Target, refused, running
from accord.conformance.verdict import NotApplicable, demand
from accord.errors import DeadlineExceeded, FailedPrecondition, ResourceExhausted, Unimplemented
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1


async def _long(target: Target, samples: int) -> rollout_v1.GenerateRequest:
    """A request that takes a while: as many tokens per sample as the context allows, at most 1,024."""
    room = (await target.status()).max_context_tokens // 2
    sampling = types_v1.SamplingParams(max_new_tokens=max(1, min(1024, room)), temperature=1.0)
    return target.request(PROMPTS[:1], n=samples, sampling=sampling)


async def _most(target: Target) -> int:
    return min((await target.status()).max_pending_samples or 512, 4096)


@check(
    demands="cancelling a call cancels its samples: pending_samples falls",
    fix="stop generating when the call is cancelled, and free its slots",
)
async def cancellation_frees_the_work(target: Target) -> None:
    request = await _long(target, await _most(target))
    async with running(target.responses(request, seconds=600)) as work:
        if not await target.until_pending() or work.done():
            raise NotApplicable("the engine finishes before it can be interrupted")
    await target.pending_falls_to(0)
    await target.samples(target.request(PROMPTS[:1]))


@check(
    demands="a deadline ends the call with DEADLINE_EXCEEDED and cancels its samples",
    fix="stop generating when the call's deadline passes",
)
async def deadlines_are_respected(target: Target) -> None:
    request = await _long(target, await _most(target))
    try:
        await target.responses(request, seconds=0.25)
    except DeadlineExceeded:
        await target.pending_falls_to(0)
        return
    raise NotApplicable("the engine finishes before the deadline")


@check(
    demands="above its limit the engine answers RESOURCE_EXHAUSTED/OVERLOADED and completes what it accepted",
    fix="count waiting and active samples; report the limit as max_pending_samples; refuse before any work",
)
async def overload_is_said(target: Target) -> None:
    limit = (await target.status()).max_pending_samples
    if not limit:
        raise NotApplicable("the engine reports no max_pending_samples")
    async with running(target.responses(await _long(target, min(limit, 4096)), seconds=600)) as work:
        if limit > 4096 or not await target.until_pending() or work.done():
            raise NotApplicable("this suite cannot fill the engine")
        more = target.request(PROMPTS[:1], n=limit)
        if (await target.status()).pending_samples == 0:
            raise NotApplicable("the engine finishes before it is full")
        await refused(target.responses(more), ResourceExhausted, "OVERLOADED")
    await target.pending_falls_to(0)


@check(
    demands="concurrent requests each get their own samples",
    fix="keep the results of requests separate",
)
async def requests_do_not_mix(target: Target) -> None:
    alone = await target.samples(target.request(n=2))
    async with running(target.samples(target.request(PROMPTS[1:], n=4))) as other:
        together = await target.samples(target.request(n=2))
        await other
    same = [list(one.response_token_ids) for one in alone.values()]
    demand(same == [list(one.response_token_ids) for one in together.values()], "another request changed the tokens")


@check(
    demands="a lease excludes other clients: FAILED_PRECONDITION/LEASE_HELD",
    fix="check lease_token of Generate and of every call that changes weights",
)
async def a_lease_shuts_others_out(target: Target) -> None:
    if not target.lease_token:
        raise NotApplicable("the engine has no leases")
    for token in ("", "another client's"):
        request = target.request(PROMPTS[:1], lease_token=token)
        await refused(target.responses(request), FailedPrecondition, "LEASE_HELD")


async def take_lease(target: Target) -> None:
    """Takes a lease for the suite, if the engine has leases."""
    request = rollout_v1.AcquireLeaseRequest(holder=f"conformance/{target.prefix}")
    request.ttl.FromSeconds(600)
    try:
        target.lease_token = (await target.stub.AcquireLease(request, timeout=target.seconds)).lease.token
    except Unimplemented:
        target.lease_token = ""
