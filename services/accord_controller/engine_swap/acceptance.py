"""Rollout services that are to draw for a run, put to the test before they get any of its work."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from accord import Replicas
from accord.conformance.check import Verdict
from accord.conformance.suite import conformance
from accord.errors import AccordError, FailedPrecondition
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1

# What an engine in service owes at least. Left out is what fills the engine for minutes (overload, deadlines), what
# needs another model, and what the steps of a run show by themselves.
CHECKS = (
    "status",
    "samples-are-whole",
    "length-is-kept",
    "stop-ends-the-response",
    "token-ids-are-taken-as-they-are",
    "missing-fields-are-named",
    "bad-values-are-named",
    "another-version-is-refused",
    "another-tokenizer-is-refused",
    "seeds-decide",
    "missing-indices-can-be-asked-for",
    "greedy-is-greedy",
    "a-bad-prompt-loses-no-other",
)
CHECK_SECONDS = 120.0
# Mean difference of two engines' logprobs of the same weights, nats a token: rounding stays far below, other weights do
# not.
MOST_NATS = 0.25


@asynccontextmanager
async def candidates(addresses: Sequence[str], holder: str, lease_seconds: float) -> AsyncIterator[Replicas]:
    """Services that nobody else uses during the block. Their leases are not given back at its end, but on an error."""
    async with Replicas(addresses, patience_seconds=CHECK_SECONDS) as replicas:

        async def renew() -> None:
            while True:
                await asyncio.sleep(lease_seconds / 3)
                try:
                    await replicas.acquire_lease(holder, ttl_seconds=lease_seconds)
                except AccordError:
                    continue  # whoever uses them meets the same trouble

        failed = await replicas.acquire_lease(holder, ttl_seconds=lease_seconds)
        for error in failed.values():
            raise error
        renewal = asyncio.create_task(renew())
        try:
            yield replicas
        except BaseException:
            await replicas.release_lease()
            raise
        finally:
            renewal.cancel()


async def try_out(
    replicas: Replicas,
    weights: types_v1.WeightsRef,
    *,
    engine: str,
    then: rollout_v1.GetStatusResponse | None,
    now: rollout_v1.GetStatusResponse | None,
    deterministic: bool,
) -> str:
    """The engine's name, once all have the weights and keep the contract.

    `engine`: which it is to be, any where it is empty; `then`: what the run began with; `now`: what draws at present.
    FailedPrecondition: NOT_CONFORMING, OTHER_ENGINE, OTHER_TOKENIZER; whatever the engine answers to the weights.
    """
    for error in (await replicas.update_weights(weights)).values():
        raise error
    said = await replicas.status()
    for address, status in said.items():
        wanted = engine or next(iter(said.values())).engine
        if status.engine != wanted:
            raise FailedPrecondition(
                f"the service at {address} runs the engine {status.engine}, not {wanted}", reason="OTHER_ENGINE"
            )
        _check_weights(address, status, weights)
        if then is not None:
            _check_like(address, status, then, deterministic)
        if now is not None:
            _check_probe(address, status, now)
    for address, token in replicas.lease_tokens.items():
        async for outcome in conformance(address, seconds=CHECK_SECONDS, only=CHECKS, lease_token=token):
            if outcome.verdict is Verdict.unmet:
                raise FailedPrecondition(
                    f"the service at {address} does not keep the contract, {outcome.check.name}: {outcome.detail}. The "
                    f"contract demands: {outcome.check.demands}; to mend it: {outcome.check.fix}",
                    reason="NOT_CONFORMING",
                    metadata={"check": outcome.check.name, "address": address},
                )
    return next(iter(said.values())).engine


def _check_weights(address: str, status: rollout_v1.GetStatusResponse, weights: types_v1.WeightsRef) -> None:
    # The digest of an adapter is its own; what is in force is the merged model's.
    digest = weights.digest if weights.format in ("", "merged", "delta") else status.digest
    if not status.ready or (status.version, status.digest) != (weights.version, digest):
        raise FailedPrecondition(
            f"the service at {address} was given version {weights.version}, {weights.digest[:12]}, and says that "
            f"{status.version}, {status.digest[:12]}, is in force",
            reason="NOT_CONFORMING",
        )


def _check_like(
    address: str, status: rollout_v1.GetStatusResponse, then: rollout_v1.GetStatusResponse, deterministic: bool
) -> None:
    if status.tokenizer_fingerprint != then.tokenizer_fingerprint:
        raise FailedPrecondition(
            f"the service at {address} has another tokenizer than the run began with: the trainer could not learn from "
            "its tokens",
            reason="OTHER_TOKENIZER",
        )
    for field in ("engine", "compute_dtype", "compute_threads") if deterministic else ():
        if getattr(status, field) != getattr(then, field):
            raise FailedPrecondition(
                f"the service at {address} has {field} {getattr(status, field)}; this run is deterministic and began "
                f"with {getattr(then, field)}",
                reason="OTHER_ENGINE",
            )


def _check_probe(address: str, status: rollout_v1.GetStatusResponse, now: rollout_v1.GetStatusResponse) -> None:
    """Two engines with the same weights find the same logprobs, up to rounding."""
    mine, theirs = status.held.probe_logprobs, now.held.probe_logprobs
    if (status.version, status.digest) != (now.version, now.digest) or not mine or len(mine) != len(theirs):
        return
    apart = statistics.fmean(abs(one - other) for one, other in zip(mine, theirs, strict=True))
    if not apart <= MOST_NATS:
        raise FailedPrecondition(
            f"the service at {address} computes other log-probabilities than the engine that draws, from the same "
            f"weights: {apart:.3f} nats a token apart on average",
            reason="NOT_CONFORMING",
        )
