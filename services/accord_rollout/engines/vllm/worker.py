"""Code that runs in vLLM's processes: the checksum of resident weights, and the exit when the service ends."""

from __future__ import annotations

import hashlib
import logging
import os
import select
import threading
from typing import Any

import torch

from accord_models.streaming import tensor_bytes

log = logging.getLogger(__name__)

# Set by the engine for the processes that vLLM starts.
SERVICE_PID = "ACCORD_ROLLOUT_SERVICE_PID"
_PROBE_ROWS = 8


class WeightsChecksum:
    """Mixed into vLLM's worker (`worker_extension_cls`)."""

    model_runner: Any

    @torch.inference_mode()
    def accord_checksum(self) -> str:
        """SHA-256 over the weights that this worker computes with, in its own layout.

        It covers the bytes of each parameter. A layer that computes with a packed copy of its weights (linear layers
        and the output head on the CPU; the parameter is then empty or unused) is covered by its output for one fixed
        random input of 8 rows, which every weight affects. Changes too small to affect a rounded output are missed.
        """
        total = hashlib.sha256()
        for name, module in sorted(self.model_runner.get_model().named_modules(), key=lambda pair: pair[0]):
            for part, tensor in sorted(module._parameters.items()):
                if tensor is None:
                    continue
                packed = part == "weight" and (hasattr(module, "cpu_linear") or not tensor.numel())
                seen = _output(module) if packed else tensor
                total.update(f"{name}.{part} {seen.dtype} {tuple(seen.shape)}\n".encode())
                total.update(tensor_bytes(seen.detach().cpu().contiguous()))
        return total.hexdigest()

    def accord_repack(self) -> None:
        """Packs the output head's weights again after an update if they are tied to the embeddings.

        On the CPU vLLM 0.32 computes with a packed copy that its reload does not renew, so the head would keep the
        old weights. Linear layers are renewed; their parameters are empty.
        """
        from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

        for layer in self.model_runner.get_model().modules():
            if hasattr(layer, "cpu_linear") and layer.weight.numel():
                dispatch_cpu_unquantized_gemm(layer, remove_weight=False)


def _output(layer: Any) -> torch.Tensor:
    """The output, (8, out), of one of vLLM's linear layers, without its bias."""
    names = ("input_size_per_partition", "input_size", "embedding_dim")  # of row-parallel, other and vocabulary layers
    features = int(next(getattr(layer, name) for name in names if hasattr(layer, name)))
    generator = torch.Generator().manual_seed(features)
    probe_BK = torch.randn(_PROBE_ROWS, features, generator=generator).to(layer.weight.dtype)
    output: torch.Tensor = layer.quant_method.apply(layer, probe_BK, None)
    return output


def end_with_the_service() -> None:
    """vLLM calls this in each of its processes (entry point of group `vllm.general_plugins`). A process that the engine
    started ends when the service has ended, for whatever reason. Has no effect in vLLM processes of other programs."""
    service = int(os.environ.get(SERVICE_PID) or 0)
    if service in (0, os.getpid()) or not hasattr(os, "pidfd_open"):
        return
    try:
        handle = os.pidfd_open(service)
    except ProcessLookupError:
        os._exit(1)

    def wait() -> None:
        select.select([handle], [], [])  # readable when the process has ended
        log.warning("the rollout service (pid %s) has ended: exiting", service)
        os._exit(1)

    threading.Thread(target=wait, name="service-watch", daemon=True).start()
