"""Servers with OpenAI's completions API: `vllm serve`, and any server with its extensions.

Training needs token ids in and out and the logprobs of the sampled distribution. OpenAI's own API has no token ids, so
such servers are refused with the missing feature; vLLM's API has all of them. Weights change through vLLM's development
endpoints (VLLM_SERVER_DEV_MODE=1), from a disk that the server shares with this process. Without these endpoints the
server serves only its initial folder.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import Field

from accord.digest import weights_digest
from accord.errors import FailedPrecondition, InvalidArgument
from accord_rollout.engine import PROBE_TOKENS, Completion, Failed, Job, ResidentWeights, Sampling, Weights
from accord_rollout.engines.options import read_options
from accord_rollout.engines.remote.base import ActiveModel, RemoteEngine, checked_completion, seed_of
from accord_rollout.engines.remote.http import ServerOptions
from accord_rollout.settings import RolloutSettings

_COMPLETIONS = "/v1/completions"


class OpenAIOptions(ServerOptions):
    """`engine_options` of `--engine openai`."""

    model: str = Field("", description="The model's name on the server; unset: the first that it lists.")


class OpenAIEngine(RemoteEngine):
    """One completion per sample."""

    def __init__(self, settings: RolloutSettings) -> None:
        options = read_options(OpenAIOptions, settings)
        super().__init__(settings, options)
        self._name = options.model
        self._served: Weights | None = None
        self._processed = False  # whether logprobs include temperature and truncation

    async def check(self, folder: Path, weights: Weights) -> int:
        """Checks the server's models, the fields of one token, and whether it can change weights."""
        model = await self._model()
        self._name = model["id"]
        await self._check_tokens()
        if self._served is None or self._served.digest != weights.digest:
            started_on = Path(str(model.get("root") or ""))
            if self._served is None and started_on.is_dir():
                digest = await asyncio.to_thread(weights_digest, started_on)
                if digest == weights.digest:
                    self._served = weights
                    return _limit(model)
            if not await self.server.has("/weight_info"):
                raise FailedPrecondition(
                    f"{self.server.url} was started on {model.get('root') or 'unnamed weights'} and "
                    f"cannot change to version {weights.version}: it has no endpoint for weight updates. "
                    "Start `vllm serve` with VLLM_SERVER_DEV_MODE=1 on a trusted network, or use the engine vllm",
                    reason="SERVER_WEIGHTS_FIXED",
                )
        return _limit(model)

    async def activate(self, folder: Path, weights: Weights) -> None:
        """Pauses, reloads from the folder, drops all cached keys and values, resumes. The handler has drained our
        requests before; requests of other clients wait on the server."""
        if self._served is not None and self._served.digest == weights.digest:
            self._served = weights
            return
        self._served = None  # unknown until the update is complete
        seconds = self.options.update_seconds
        await self.server.post("/pause?mode=wait", {}, seconds)
        reload = {"method": "reload_weights", "kwargs": {"weights_path": str(folder.absolute())}}
        await self.server.post("/collective_rpc", reload, seconds)
        await self.server.post("/reset_prefix_cache", {}, seconds)
        await self.server.post("/update_weight_version", {"new_version": str(weights.version)}, seconds)
        await self.server.post("/resume", {}, seconds)
        self._served = weights

    async def resident_weights(self) -> ResidentWeights:
        """The server's own checksums, if it has them (vLLM's omit layers that the CPU build has repacked), and the
        probe."""
        checksum = ""
        if await self.server.has("/weight_info"):
            found = await self.server.post("/weight_checker", {"action": "checksum"}, self.options.update_seconds)
            checksum = hashlib.sha256(json.dumps(found["checksums"], sort_keys=True).encode()).hexdigest()
        choice = await self._complete(list(PROBE_TOKENS), max_tokens=1, temperature=0, prompt_logprobs=0)
        probe = choice.get("prompt_logprobs") or [None]
        return ResidentWeights(
            checksum=checksum,
            probe_logprobs=tuple(
                float(at[str(token)]["logprob"]) for token, at in zip(PROBE_TOKENS[1:], probe[1:], strict=False)
            ),
        )

    def check_sampling(self, sampling: Sampling) -> None:
        """Raw logprobs, those of softmax(logits), are right at temperature 0, and at 1 without top_k and top_p."""
        plain = sampling.temperature in (0, 1) and sampling.top_p == 1 and sampling.top_k == 0
        if not (self._processed or plain):
            raise FailedPrecondition(
                f"{self.server.url} reports logprobs before temperature, top_k and top_p. Start it with "
                "`--logprobs-mode processed_logprobs`, or sample at temperature 1 without them",
                reason="SERVER_LOGPROBS_RAW",
            )

    async def request_sample(self, model: ActiveModel, job: Job, sampling: Sampling) -> Completion | Failed:
        """One completion."""
        choice = await self._complete(
            list(job.prompt_token_ids),
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=seed_of(job),
            stop_token_ids=list(model.stop_ids),
        )
        if choice["prompt_token_ids"] != list(job.prompt_token_ids):
            return Failed(job.index, "SERVER_RETOKENISED", "the server changed the prompt tokens of the request")
        return checked_completion(
            job, choice["token_ids"], choice["logprobs"]["token_logprobs"], choice["finish_reason"]
        )

    async def _complete(self, prompt: list[int], **sampling: Any) -> dict[str, Any]:
        """The one choice. The request overrides every sampling default that the server takes from the model."""
        body = {
            "model": self._name,
            "prompt": prompt,
            "n": 1,
            "logprobs": 0,
            "return_token_ids": True,
            "ignore_eos": True,  # stop_token_ids has it
            "skip_special_tokens": False,
            "min_p": 0,
            "repetition_penalty": 1,
            "presence_penalty": 0,
            "frequency_penalty": 0,
            **sampling,
        }
        answer = await self.server.post(_COMPLETIONS, body, self.options.request_seconds)
        choice: dict[str, Any] = answer["choices"][0]
        return choice

    async def _model(self) -> dict[str, Any]:
        listed = (await self.server.get("/v1/models")).get("data") or []
        for model in listed:
            if self._name in ("", model["id"]):
                return dict(model)
        raise FailedPrecondition(
            f"{self.server.url} has no model {self._name!r}; available: {', '.join(m['id'] for m in listed) or 'none'}",
            reason="SERVER_LACKS",
        )

    async def _check_tokens(self) -> None:
        """Requests one token with top_k 1: after truncation its logprob is 0."""
        prompt = list(PROBE_TOKENS[:4])
        try:
            choice = await self._complete(prompt, max_tokens=1, temperature=1, top_k=1, seed=1)
        except InvalidArgument as error:
            raise self._unfit(
                f"it refuses a prompt of token ids with vLLM's sampling fields ({error.message})"
            ) from error
        if choice.get("prompt_token_ids") != prompt or not choice.get("token_ids"):
            raise self._unfit("it does not return token ids (vLLM's `return_token_ids`)")
        logprobs = (choice.get("logprobs") or {}).get("token_logprobs") or []
        if len(logprobs) != len(choice["token_ids"]):
            raise self._unfit("it does not return the logprob of each sampled token")
        self._processed = abs(float(logprobs[0])) < 1e-3

    def _unfit(self, why: str) -> FailedPrecondition:
        return FailedPrecondition(
            f"{self.server.url} cannot serve training: {why}. Text that is tokenised again may give different "
            "tokens. Use vLLM or SGLang",
            reason="SERVER_UNFIT",
        )


def _limit(model: dict[str, Any]) -> int:
    return int(model.get("max_model_len") or 2**31 - 1)
