"""Weights are verified before they serve, reported by every sample, and updated without losing one."""

from __future__ import annotations

import asyncio

from accord.conformance.check import check
from accord.conformance.target import PROMPTS, Target, refused, running
from accord.conformance.verdict import demand
from accord.errors import AccordError, FailedPrecondition
from accord.renamed import resident_weights
from accord.types import v1 as types_v1


async def _next(target: Target) -> int:
    return (await target.status()).version + 1


@check(
    demands="after UpdateWeights status and samples report the new version and its digest",
    fix="recompute the digest of the fetched weights; report it with the version from the first new token on",
)
async def an_update_is_told(target: Target) -> None:
    for folder in (target.other, target.model):
        ref = target.weights(folder, await _next(target))
        answer = await target.update(ref)
        demand((answer.version, answer.digest) == (ref.version, ref.digest), f"it returned {answer.digest[:12]}")
        status = await target.status()
        demand((status.version, status.digest) == (ref.version, ref.digest), f"status reports version {status.version}")
        resident = resident_weights(status)
        demand(resident.digest in ("", ref.digest), "the reported resident weights are not the published ones")
        for sample in (await target.samples(target.request(version=ref.version))).values():
            segments = [(one.start, one.version, one.digest) for one in sample.segments]
            demand(segments == [(0, ref.version, ref.digest)], f"segments of sample {sample.index} are {segments}")


@check(
    demands="different weights give different tokens, and the first weights, loaded again, give the first tokens",
    fix="use the new weights, and nothing cached from the old ones (a prefix cache)",
)
async def an_update_takes_effect(target: Target) -> None:
    generated = []
    for folder in (target.model, target.other, target.model):
        await target.update(target.weights(folder, await _next(target)))
        found = await target.samples(target.request(n=2))
        generated.append([list(sample.response_token_ids) for sample in found.values()])
    demand(generated[0] != generated[1], "another model gave the same tokens")
    demand(generated[0] == generated[2], "the first model, loaded again, gave different tokens")


@check(
    demands="weights with a different digest are FAILED_PRECONDITION/DIGEST_MISMATCH, and the old ones stay active",
    fix="verify before activation",
)
async def corrupt_weights_are_refused(target: Target) -> None:
    before = await target.status()
    ref = target.weights(target.other, before.version + 1)
    ref.digest = ref.digest[::-1]
    await refused(target.update(ref), FailedPrecondition, "DIGEST_MISMATCH")
    ref.uri = "file:///nowhere/at/all"
    await refused(target.update(ref), AccordError)
    after = await target.status()
    demand((after.version, after.digest) == (before.version, before.digest), "a refused update changed the weights")
    await target.samples(target.request(version=before.version))


@check(
    demands="an update repeated with its request_id has no second effect",
    fix="remember the result of a request_id",
)
async def an_update_can_be_repeated(target: Target) -> None:
    ref, request_id = target.weights(target.other, await _next(target)), target.request_id()
    first = await target.update(ref, request_id)
    await target.update(target.weights(target.model, ref.version + 1))
    demand(await target.update(ref, request_id) == first, "the repeated call returned a different answer")
    version = (await target.status()).version
    demand(version == ref.version + 1, f"the repeated call activated version {version} again")


@check(
    demands="prepared weights are listed and do not serve until they are activated; others cannot be activated",
    fix="fetch and verify in PrepareWeights; only swap in ActivateWeights",
)
async def weights_change_in_two_phases(target: Target) -> None:
    before = await target.status()
    ref = target.weights(target.other, before.version + 1)
    prepared = await target.prepare(ref)
    demand(
        (prepared.version, prepared.digest) == (ref.version, ref.digest), "PrepareWeights returned different weights"
    )
    status = await target.status()
    demand(ref.version in [one.version for one in status.prepared], "status does not list the prepared weights")
    demand(status.version == before.version, "preparing changed the active weights")
    await refused(target.activate(ref.version + 5), FailedPrecondition, "NOT_PREPARED")
    await target.activate(ref.version)
    demand((await target.status()).digest == ref.digest, "ActivateWeights did not activate the weights")
    again = target.weights(target.model, ref.version + 1)
    await target.prepare(again)
    await target.discard(again.version)
    await refused(target.activate(again.version), FailedPrecondition, "NOT_PREPARED")


@check(
    demands="running requests survive an update, and each token names the weights that generated it",
    fix="let requests finish first, or continue with the new weights and add a segment (updates_in_flight)",
)
async def requests_survive_an_update(target: Target) -> None:
    old = target.weights(target.model, await _next(target))
    new = target.weights(target.other, old.version + 1)
    await target.update(old)
    in_flight = (await target.status()).updates_in_flight
    room = max(1, min(192, (await target.status()).max_context_tokens // 2))
    request = target.request(PROMPTS, n=8, sampling=types_v1.SamplingParams(max_new_tokens=room))
    known = {old.version: old.digest, new.version: new.digest}
    async with running(target.samples(request)) as work:
        await target.until_pending()
        await asyncio.sleep(0.05)
        await target.update(new)
        found = await work
    assert isinstance(found, dict)
    for sample in found.values():
        starts = [one.start for one in sample.segments]
        demand(starts[:1] == [0] and starts == sorted(set(starts)), f"segments of {sample.index} start at {starts}")
        demand(starts[-1] < len(sample.response_token_ids), f"a segment of {sample.index} has no token")
        demand(
            len(starts) == 1 or in_flight,
            f"sample {sample.index} has two versions without updates_in_flight",
        )
        wrong = [one for one in sample.segments if known.get(one.version) != one.digest]
        demand(not wrong, f"sample {sample.index} names weights that were never active: {wrong}")
