"""Reasons of the rollout service and its engines."""

from __future__ import annotations

from accord.reasons.reason import Reason

REASONS = {
    "BAD_ENGINE_OPTIONS": Reason(
        "The options of the engine are invalid; the field violations name them.",
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
        "The engine's processes exited while they served a request or loaded weights.",
        "Repeat the request; if it happens again, check the log of the rollout service.",
    ),
    "ENGINE_FAULT": Reason(
        "The engine returned no result for some of the samples.",
        "Check the log of the rollout service; this is a fault of the engine.",
    ),
    "ENGINE_REFUSED": Reason(
        "vLLM refused the request of one sample.",
        "Change the request according to the message.",
    ),
    "ENGINE_REFUSES": Reason(
        "vLLM does not support these sampling parameters.",
        "Change the sampling parameters according to the message.",
    ),
    "ENGINE_STUCK": Reason(
        "vLLM did not load the weights in time and was terminated.",
        "Send the update again; it restarts vLLM.",
    ),
    "HELD_WEIGHTS_DIFFER": Reason(
        "The weights in the engine differ from the requested ones, so the engine does not serve.",
        "Send the update again; if it happens again, restart the service.",
    ),
    "NON_FINITE_LOGITS": Reason(
        "The model computes NaN or infinity: its weights are broken.",
        "Use different weights, for example those of an earlier version, and find out why training diverged.",
    ),
    "NOT_PREPARED": Reason(
        "The version to activate is not prepared.",
        "Call PrepareWeights first.",
    ),
    "NO_DEVICE": Reason(
        "The engine is configured to use a GPU, but torch finds none.",
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
        "The inference server's response does not follow its protocol.",
        "Check that the engine's URL belongs to the kind of server that the engine expects.",
    ),
    "SERVER_DENIES": Reason(
        "The inference server refused the API key.",
        "Check the key in the engine's options.",
    ),
    "SERVER_FAILS": Reason(
        "The inference server reported an internal error.",
        "Check the log of the inference server; the call can be repeated.",
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
        "Change the request according to the message.",
    ),
    "SERVER_RETOKENISED": Reason(
        "The inference server changed the prompt tokens of the request.",
        "Use a server that passes token ids on unchanged, such as vLLM.",
    ),
    "SERVER_TIMEOUT": Reason(
        "The inference server did not answer in time.",
        "Check the server's load and health, then repeat the call.",
    ),
    "SERVER_UNFIT": Reason(
        "The inference server does not return the token ids and log-probabilities that training needs.",
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
        "The service already holds the maximum number of prepared versions.",
        "Activate or discard one (ActivateWeights, DiscardWeights), or raise `--max-prepared-versions`.",
    ),
    "UNKNOWN_ENGINE": Reason(
        "No engine with this name is installed, or deployed in the cluster.",
        "Use one that the message lists, or install its plug-in.",
    ),
    "VERSION_MISMATCH": Reason(
        "The active version of the weights is not the one that the request demands.",
        "Call UpdateWeights with the required version.",
    ),
    "VERSION_PREPARED": Reason(
        "The version is already prepared, with different weights.",
        "Discard it with DiscardWeights first.",
    ),
}
