"""Acceptance of swap candidates: the checks that rollout services must pass before they serve a run."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from accord import Replicas
from accord.conformance.suite import acceptance, conformance
from accord.conformance.verdict import Verdict
from accord.errors import AccordError, FailedPrecondition
from accord.renamed import resident_weights
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1

CHECK_SECONDS = 120.0
# The largest accepted mean difference between two engines' log-probabilities from the same weights, in nats per token.
# Rounding stays far below it; different weights do not.
MOST_NATS = 0.25


@asynccontextmanager
async def candidates(addresses: Sequence[str], holder: str, lease_seconds: float) -> AsyncIterator[Replicas]:
    """The services at these addresses, with leases that are renewed during the block. An error releases the leases;
    otherwise the holder keeps them."""
    async with Replicas(addresses, patience_seconds=CHECK_SECONDS) as replicas:

        async def renew() -> None:
            while True:
                await asyncio.sleep(lease_seconds / 3)
                try:
                    await replicas.acquire_lease(holder, ttl_seconds=lease_seconds)
                except AccordError:
                    continue  # the next call to the service fails in the same way

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


async def accept(
    replicas: Replicas,
    weights: types_v1.WeightsRef,
    *,
    engine: str,
    initial: rollout_v1.GetStatusResponse | None,
    current: rollout_v1.GetStatusResponse | None,
    deterministic: bool,
) -> str:
    """The engine's name, once all candidates have the weights and meet the contract.

    `engine`: the expected engine, empty for any; `initial`: the engine that the run began with; `current`: the engine
    that serves now. FailedPrecondition: NOT_CONFORMING, OTHER_ENGINE, OTHER_TOKENIZER; also any error about the
    weights.
    """
    for error in (await replicas.update_weights(weights)).values():
        raise error
    statuses = await replicas.status()
    for address, status in statuses.items():
        wanted = engine or next(iter(statuses.values())).engine
        if status.engine != wanted:
            raise FailedPrecondition(
                f"the service at {address} runs the engine {status.engine}, not {wanted}", reason="OTHER_ENGINE"
            )
        _check_weights(address, status, weights)
        if initial is not None:
            _check_like(address, status, initial, deterministic)
        if current is not None:
            _check_probe(address, status, current)
    for address, token in replicas.lease_tokens.items():
        async for outcome in conformance(address, seconds=CHECK_SECONDS, only=acceptance(), lease_token=token):
            if outcome.verdict is Verdict.unmet:
                raise FailedPrecondition(
                    f"the service at {address} does not meet the engine contract, check {outcome.check.name}: "
                    f"{outcome.detail}. The contract demands: {outcome.check.demands}. To fix it: {outcome.check.fix}",
                    reason="NOT_CONFORMING",
                    metadata={"check": outcome.check.name, "address": address},
                )
    return next(iter(statuses.values())).engine


def _check_weights(address: str, status: rollout_v1.GetStatusResponse, weights: types_v1.WeightsRef) -> None:
    # The digest of an adapter is not that of the merged model, which the engine reports.
    digest = weights.digest if weights.format in ("", "merged", "delta") else status.digest
    if not status.ready or (status.version, status.digest) != (weights.version, digest):
        raise FailedPrecondition(
            f"the service at {address} was given version {weights.version} ({weights.digest[:12]}) and reports version "
            f"{status.version} ({status.digest[:12]}) as active",
            reason="NOT_CONFORMING",
        )


def _check_like(
    address: str, status: rollout_v1.GetStatusResponse, initial: rollout_v1.GetStatusResponse, deterministic: bool
) -> None:
    if status.tokenizer_fingerprint != initial.tokenizer_fingerprint:
        raise FailedPrecondition(
            f"the service at {address} has a different tokenizer than the run began with, so the trainer could not "
            "learn from its tokens",
            reason="OTHER_TOKENIZER",
        )
    for field in ("engine", "compute_dtype", "compute_threads") if deterministic else ():
        if getattr(status, field) != getattr(initial, field):
            raise FailedPrecondition(
                f"the service at {address} has {field} {getattr(status, field)}, but this deterministic run began with "
                f"{getattr(initial, field)}",
                reason="OTHER_ENGINE",
            )


def _check_probe(address: str, status: rollout_v1.GetStatusResponse, current: rollout_v1.GetStatusResponse) -> None:
    """Checks that two engines with the same weights compute the same log-probabilities, up to rounding."""
    mine, theirs = resident_weights(status).probe_logprobs, resident_weights(current).probe_logprobs
    if (status.version, status.digest) != (current.version, current.digest) or not mine or len(mine) != len(theirs):
        return
    apart = statistics.fmean(abs(one - other) for one, other in zip(mine, theirs, strict=True))
    if not apart <= MOST_NATS:
        raise FailedPrecondition(
            f"the service at {address} computes different log-probabilities than the current engine from the same "
            f"weights: they differ by {apart:.3f} nats per token on average",
            reason="NOT_CONFORMING",
        )
