"""The engine under test, and the calls that checks make. Every call has a deadline."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from accord.conformance.verdict import NotApplicable, Unmet, demand
from accord.conversations import conversation
from accord.digest import weights_digest
from accord.errors import AccordError, InvalidArgument, Unimplemented
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1

PROMPTS = ("Hello!", "What is the best way to learn?", "Count to three.")

# log-probabilities, nats, of response tokens: (model folder, prompt ids, response ids, sampling parameters)
Reference = Callable[[Path, Sequence[int], Sequence[int], types_v1.SamplingParams], Sequence[float]]


@dataclass
class Target:
    """`model` and `other`: two folders that the engine can load on its machine; `reference`: recomputes logprobs of
    `model`. Checks that need a missing one are not applicable."""

    stub: rollout_v1.RolloutServiceStub
    model: Path | None = None
    other: Path | None = None
    reference: Reference | None = None
    tolerance: float = 0.02
    seconds: float = 60.0
    lease_token: str = ""
    _ids: itertools.count[int] = field(default_factory=itertools.count)
    prefix: str = "conformance"

    def request_id(self) -> str:
        """A new request id."""
        return f"{self.prefix}-{next(self._ids)}"

    async def status(self) -> rollout_v1.GetStatusResponse:
        """The engine's status."""
        return await self.stub.GetStatus(rollout_v1.GetStatusRequest(), timeout=self.seconds)

    def request(self, texts: Iterable[str] = PROMPTS, **fields: object) -> rollout_v1.GenerateRequest:
        """12 tokens for each text at temperature 1, unless `fields` override these."""
        defaults = {
            "request_id": self.request_id(),
            "sampling": types_v1.SamplingParams(max_new_tokens=12),
            "prompts": [
                rollout_v1.Prompt(prompt_id=f"p{number}", conversation=conversation(text), seed=number + 1)
                for number, text in enumerate(texts)
            ],
            "lease_token": self.lease_token,
        }
        return rollout_v1.GenerateRequest(**{**defaults, **fields})  # type: ignore[arg-type]

    async def responses(
        self, request: rollout_v1.GenerateRequest, seconds: float | None = None
    ) -> dict[int, rollout_v1.GenerateResponse]:
        """All responses by index. Unmet if one is returned twice or was not requested."""
        wanted = set(request.indices) or set(range(len(request.prompts) * max(request.n, 1)))
        found: dict[int, rollout_v1.GenerateResponse] = {}
        async for response in self.stub.Generate(request, timeout=seconds or self.seconds):
            kind = response.WhichOneof("result")
            demand(kind, "a response is neither a sample nor a failure")
            result = response.sample if kind == "sample" else response.failure
            demand(result.request_id == request.request_id, f"a response has request_id {result.request_id!r}")
            demand(result.index in wanted, f"index {result.index} was not requested")
            demand(result.index not in found, f"index {result.index} was returned twice")
            found[result.index] = response
        missing = sorted(wanted - found.keys())
        demand(not missing, f"the stream ended without indices {missing[:8]}")
        return found

    async def samples(self, request: rollout_v1.GenerateRequest) -> dict[int, types_v1.Sample]:
        """All samples by index. Unmet if one failed."""
        found = await self.responses(request)
        for index, response in found.items():
            failure = response.failure.failure
            demand(
                response.HasField("sample"), f"index {index} is a failure: {failure.reason} {failure.message}".strip()
            )
        return {index: response.sample for index, response in sorted(found.items())}

    async def pending_falls_to(self, samples: int) -> None:
        """Waits until `pending_samples` falls to `samples`. Unmet if it stays above."""
        try:
            async with asyncio.timeout(self.seconds):
                while (left := (await self.status()).pending_samples) > samples:  # noqa: ASYNC110  polling is the only way
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise Unmet(f"{left} samples are still pending after {self.seconds:g} s") from None

    async def until_pending(self) -> bool:
        """Whether samples were pending at some time within `seconds`."""
        for _ in range(int(self.seconds / 0.02)):
            if (await self.status()).pending_samples:
                return True
            await asyncio.sleep(0.02)
        return False

    def weights(self, folder: Path | None, version: int) -> types_v1.WeightsRef:
        """A reference to a model folder. NotApplicable if no folder was given."""
        if folder is None:
            raise NotApplicable("needs --model and --other, two models that the engine can load")
        return types_v1.WeightsRef(uri=folder.resolve().as_uri(), version=version, digest=weights_digest(folder))

    async def update(self, ref: types_v1.WeightsRef, request_id: str = "") -> rollout_v1.UpdateWeightsResponse:
        """UpdateWeights."""
        request = rollout_v1.UpdateWeightsRequest(
            request_id=request_id or self.request_id(), weights=ref, lease_token=self.lease_token
        )
        return await self.stub.UpdateWeights(request, timeout=self.seconds)

    async def prepare(self, ref: types_v1.WeightsRef) -> rollout_v1.PreparedWeights:
        """PrepareWeights. NotApplicable if the engine has one phase only."""
        request = rollout_v1.PrepareWeightsRequest(
            request_id=self.request_id(), weights=ref, lease_token=self.lease_token
        )
        try:
            return (await self.stub.PrepareWeights(request, timeout=self.seconds)).prepared
        except Unimplemented:
            raise NotApplicable("the engine has no PrepareWeights") from None

    async def activate(self, version: int) -> rollout_v1.ActivateWeightsResponse:
        """ActivateWeights."""
        request = rollout_v1.ActivateWeightsRequest(
            request_id=self.request_id(), version=version, lease_token=self.lease_token
        )
        return await self.stub.ActivateWeights(request, timeout=self.seconds)

    async def discard(self, version: int) -> None:
        """DiscardWeights."""
        request = rollout_v1.DiscardWeightsRequest(
            request_id=self.request_id(), version=version, lease_token=self.lease_token
        )
        await self.stub.DiscardWeights(request, timeout=self.seconds)


async def refused(call: Awaitable[object], error: type[AccordError], reason: str = "") -> AccordError:
    """Runs `call` and returns the error that it raises. Unmet if the error differs or has no reason code."""
    try:
        await call
    except error as found:
        # The SDK uses the default reason of a class if the status has none.
        if reason:
            demand(found.reason == reason, f"the reason is {found.reason}, not {reason}: {found.message}")
        elif error is not InvalidArgument:
            demand(found.reason != error.reason, f"the status has no ErrorInfo with a reason: {found.message}")
        return found
    except AccordError as found:
        raise Unmet(
            f"answered {found.code.name} {found.reason} instead of {error.code.name}: {found.message}"
        ) from found
    raise Unmet(f"was accepted; expected {error.code.name} {reason}".replace("  ", " "))


@asynccontextmanager
async def running(call: Awaitable[object]) -> AsyncIterator[asyncio.Future[object]]:
    """Runs `call` during the block and cancels it after."""
    task = asyncio.ensure_future(call)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
