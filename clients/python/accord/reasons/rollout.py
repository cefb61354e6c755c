"""Reasons of the rollout service and its engines."""

from __future__ import annotations

from accord.reasons.reason import Reason

REASONS = {
    "BAD_ENGINE_OPTIONS": Reason(
        "The options of the engine are wrong; the field violations name them.",
        "Correct `rollout.engineOptions` or `--engine-options`; the message lists what the engine accepts.",
    ),
    "BASE_MISSING": Reason(
        "The service does not have the weights that the delta or adapter is based on.",
        "Update the service to the base version first, or publish the weights merged.",
    ),
    "EMPTY_PROMPT": Reason(
        "A prompt has no tokens.",
        "Send a prompt with text.",
    ),
    "ENGINE_ABORTED": Reason(
        "vLLM ended the sample early.",
        "Request the sample again.",
    ),
    "ENGINE_DIED": Reason(
        "The engine's processes ended while they served a request or loaded weights.",
        "Repeat the request; if it happens again, look into the log of the rollout service.",
    ),
    "ENGINE_FAULT": Reason(
        "The engine returned no result for some of the samples.",
        "Look into the log of the rollout service; this is a fault of the engine.",
    ),
    "ENGINE_REFUSED": Reason(
        "vLLM refused the request of one sample.",
        "Change the request as the message says.",
    ),
    "ENGINE_REFUSES": Reason(
        "vLLM does not support these sampling parameters.",
        "Change the sampling parameters as the message says.",
    ),
    "ENGINE_STUCK": Reason(
        "vLLM did not load the weights in time and was ended.",
        "Send the update again; it starts vLLM anew.",
    ),
    "HELD_WEIGHTS_DIFFER": Reason(
        "The engine holds other weights than those it was asked to load, so it does not serve.",
        "Send the update again; if it happens again, restart the service.",
    ),
    "NON_FINITE_LOGITS": Reason(
        "The model computes NaN or infinity: its weights are broken.",
        "Use other weights, for example those of an earlier version, and find out why training diverged.",
    ),
    "NOT_PREPARED": Reason(
        "The version to activate is not prepared.",
        "Call PrepareWeights first.",
    ),
    "NO_DEVICE": Reason(
        "The engine is to use a GPU, but torch finds none.",
        "Start the service with `--device cpu` or `auto`, or on a machine with a GPU.",
    ),
    "NO_WEIGHTS": Reason(
        "The service has no weights yet.",
        "Call UpdateWeights first.",
    ),
    "OVERLOADED": Reason(
        "The queue of the service is full.",
        "Repeat the call later, or send less at once.",
    ),
    "PROMPT_TOO_LONG": Reason(
        "The prompt and the requested tokens do not fit into the model's context.",
        "Shorten the prompt or request fewer tokens; `prompts.maxCharacters` leaves long prompts out of a run.",
    ),
    "SERVER_ANSWER": Reason(
        "The inference server's answer does not follow its protocol.",
        "Check that the engine's URL belongs to the kind of server that the engine expects.",
    ),
    "SERVER_DENIES": Reason(
        "The inference server refused the API key.",
        "Check the key in the engine's options.",
    ),
    "SERVER_FAILS": Reason(
        "The inference server reported an internal error.",
        "Look into the log of the inference server; the call may be repeated.",
    ),
    "SERVER_LACKS": Reason(
        "The inference server lacks a path or a model that the engine needs.",
        "Check the engine's URL and the name of the model; use a server version that has the path.",
    ),
    "SERVER_LOGPROBS_RAW": Reason(
        "The inference server reports log-probabilities before temperature, top-k or top-p are applied.",
        "Sample without the parameters that the message names, or start vLLM with `--logprobs-mode "
        "processed_logprobs`.",
    ),
    "SERVER_OVERLOADED": Reason(
        "The inference server has too many requests.",
        "Repeat the call later, or send less at once.",
    ),
    "SERVER_REFUSES": Reason(
        "The inference server refused the request.",
        "Change the request as the message says.",
    ),
    "SERVER_RETOKENISED": Reason(
        "The inference server gave the model other prompt tokens than were sent.",
        "Use a server that takes token ids as they are, such as vLLM.",
    ),
    "SERVER_TIMEOUT": Reason(
        "The inference server did not answer in time.",
        "Check the server's load and health, then repeat the call.",
    ),
    "SERVER_UNFIT": Reason(
        "The inference server does not return what training needs: token ids and their log-probabilities.",
        "Use vLLM or SGLang.",
    ),
    "SERVER_UNREACHABLE": Reason(
        "The inference server cannot be reached.",
        "Start it, or correct its URL in the engine's options.",
    ),
    "SERVER_WEIGHTS_FIXED": Reason(
        "The inference server cannot change its weights.",
        "Start `vllm serve` with `VLLM_SERVER_DEV_MODE=1` on a trusted network, or use the engine `vllm`.",
    ),
    "TOO_MANY_PREPARED": Reason(
        "The service holds as many prepared versions as it may.",
        "Activate or discard one (ActivateWeights, DiscardWeights), or raise `--max-prepared-versions`.",
    ),
    "UNKNOWN_ENGINE": Reason(
        "No engine of this name is installed, or deployed in the cluster.",
        "Use one that the message lists, or install its plug-in.",
    ),
    "VERSION_MISMATCH": Reason(
        "The service serves another version of the weights than the request demands.",
        "Call UpdateWeights with the version that is wanted.",
    ),
    "VERSION_PREPARED": Reason(
        "The version is prepared already, with other weights.",
        "Discard it with DiscardWeights first.",
    ),
}
