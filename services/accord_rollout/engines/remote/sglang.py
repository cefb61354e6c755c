"""SGLang servers, by their native HTTP API: /generate with token ids, weights from disk, flushed caches.

The tests do not run a real SGLang, because pip installs no CPU build of it. They run this engine against a local server
that speaks the same protocol.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accord.errors import FailedPrecondition, Unavailable
from accord_rollout.engine import PROBE_TOKENS, Completion, Failed, Job, ResidentWeights, Sampling, Weights
from accord_rollout.engines.options import read_options
from accord_rollout.engines.remote.base import ActiveModel, RemoteEngine, checked_completion, seed_of
from accord_rollout.engines.remote.http import ServerOptions
from accord_rollout.settings import RolloutSettings


class SGLangOptions(ServerOptions):
    """`engine_options` of `--engine sglang`."""


class SGLangEngine(RemoteEngine):
    """One /generate per sample. Seeds have an effect if the server runs with --enable-deterministic-inference."""

    def __init__(self, settings: RolloutSettings) -> None:
        super().__init__(settings, read_options(SGLangOptions, settings))

    async def check(self, folder: Path, weights: Weights) -> int:
        """Checks the fields of one token; reads the context length."""
        answer = await self._generate(list(PROBE_TOKENS[:4]), {"max_new_tokens": 1, "temperature": 0})
        if not answer.get("output_ids") or not answer["meta_info"].get("output_token_logprobs"):
            raise FailedPrecondition(
                f"{self.server.url} cannot serve training: /generate returns no output_ids or no output_token_logprobs",
                reason="SERVER_UNFIT",
            )
        info = await self.server.get("/get_server_info")
        return int(info.get("context_length") or info.get("max_total_num_tokens") or 2**31 - 1)

    async def activate(self, folder: Path, weights: Weights) -> None:
        """Pauses, loads from the folder (on a disk shared with the server), drops caches, continues."""
        seconds = self.options.update_seconds
        await self.server.post("/pause_generation", {"mode": "retract"}, seconds)
        try:
            done = await self.server.post(
                "/update_weights_from_disk",
                {"model_path": str(folder.absolute()), "flush_cache": True, "weight_version": str(weights.version)},
                seconds,
            )
        finally:
            await self.server.post("/continue_generation", {}, seconds)
        if not done.get("success"):
            raise Unavailable(
                f"{self.server.url} did not load version {weights.version}: {done.get('message')}",
                reason="SERVER_FAILS",
            )
        await self.server.post("/flush_cache", {}, seconds)

    async def resident_weights(self) -> ResidentWeights:
        """Only the probe: SGLang's API has no checksum that this engine can rely on."""
        ids = list(PROBE_TOKENS)
        answer = await self._generate(ids, {"max_new_tokens": 1, "temperature": 0}, logprob_start_len=0)
        found = answer["meta_info"].get("input_token_logprobs") or []
        return ResidentWeights(probe_logprobs=tuple(float(entry[0]) for entry in found[1:]))

    def check_sampling(self, sampling: Sampling) -> None:
        """SGLang computes logprobs after temperature and before top_k and top_p."""
        if sampling.temperature != 0 and (sampling.top_p != 1 or sampling.top_k != 0):
            raise FailedPrecondition(
                f"{self.server.url} (SGLang) reports logprobs before top_k and top_p; sample without them",
                reason="SERVER_LOGPROBS_RAW",
            )

    async def request_sample(self, model: ActiveModel, job: Job, sampling: Sampling) -> Completion | Failed:
        """One /generate."""
        answer = await self._generate(
            list(job.prompt_token_ids),
            {
                "max_new_tokens": sampling.max_new_tokens,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k or -1,
                "sampling_seed": seed_of(job) & 0x7FFFFFFF,  # a 32-bit number there
                "stop_token_ids": list(model.stop_ids),
            },
        )
        entries, meta = answer["meta_info"]["output_token_logprobs"], answer["meta_info"]
        tokens = list(answer["output_ids"])
        if [entry[1] for entry in entries] != tokens:
            return Failed(job.index, "SERVER_ANSWER", "output_ids and output_token_logprobs name different tokens")
        return checked_completion(job, tokens, [entry[0] for entry in entries], meta["finish_reason"]["type"])

    async def _generate(self, ids: list[int], sampling: dict[str, Any], logprob_start_len: int = -1) -> dict[str, Any]:
        body = {
            "input_ids": ids,
            "sampling_params": {"ignore_eos": True, "skip_special_tokens": False, **sampling},
            "return_logprob": True,
            "logprob_start_len": logprob_start_len,
            "stream": False,
        }
        return await self.server.post("/generate", body, self.options.request_seconds)
