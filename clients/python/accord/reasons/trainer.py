"""Reasons of the trainer and its algorithms."""

from __future__ import annotations

from accord.reasons.reason import Reason

REASONS = {
    "ALL_REJECTED": Reason(
        "Every response of the step was rejected, because the engine and the policy give them too different "
        "probabilities.",
        "Raise the option `rejection_cap`, use another `rejection_measure`, or lower `policy.maxStaleness`.",
    ),
    "BAD_OPTIONS": Reason(
        "The options of an algorithm or a scorer are wrong; the field violations name them.",
        "Correct the options; the message lists what is known.",
    ),
    "BATCH_DAMAGED": Reason(
        "Stored experience cannot be read.",
        "Delete the file that the message names, and send the experience again with PutExperience.",
    ),
    "BATCH_NOT_FOUND": Reason(
        "The trainer does not have this batch of experience.",
        "Send the experience again with PutExperience.",
    ),
    "CHECKPOINT_DAMAGED": Reason(
        "A checkpoint cannot be read.",
        "Delete the folder that the message names; the training continues from the checkpoint before it.",
    ),
    "COMPILE_UNAVAILABLE": Reason(
        "`torch.compile` does not work on this machine.",
        "Install a C++ compiler (and Triton on GPUs), or leave the option `compile` off.",
    ),
    "NOT_FINITE": Reason(
        "A loss, gradient or metric is NaN or infinite; the step was undone.",
        "Lower `learning_rate`, or look at the batch.",
    ),
    "NO_ADAPTER": Reason(
        "This training has no adapter that could be published.",
        "Publish the weights merged.",
    ),
    "NO_GPU": Reason(
        "The trainer is to use a GPU, but torch finds none.",
        "Set `--device` to `cpu` or `auto`, or start the trainer on a machine with a GPU.",
    ),
    "NO_SIGNAL": Reason(
        "All responses to each prompt have the same reward, so there is nothing to learn from.",
        "Use other prompts, more samples for each prompt, or a finer score.",
    ),
    "OTHER_RANK": Reason(
        "Another rank of the trainer failed; its own error says why.",
        "Look for the error of the other rank in the log.",
    ),
    "OUT_OF_MEMORY": Reason(
        "The step needs more memory than is free; the model is unchanged.",
        "Reduce what the message names, for example with `micro_batch_tokens` or `activation_checkpointing`.",
    ),
    "PUBLISH_MISMATCH": Reason(
        "The published weights have another digest than those in memory.",
        "Check the disk, then publish again.",
    ),
    "RANK_LOST": Reason(
        "A rank of the trainer ended or does not answer; the trainer ends.",
        "Start the trainer again (`torchrun --max-restarts` does it), and repeat the steps since its last checkpoint.",
    ),
    "RESTORE_MISMATCH": Reason(
        "The weights restored from a checkpoint are not those that were saved.",
        "Delete the checkpoint that the message names, and continue from an earlier one.",
    ),
    "STALE_EXPERIENCE": Reason(
        "A sample was made by a version that is too old for this step.",
        "Generate the samples again with the current weights, or raise `policy.maxStaleness`.",
    ),
    "STATE_MISMATCH": Reason(
        "The saved state of the optimizer belongs to another model.",
        "Continue with the model that made the checkpoint, or begin a new training.",
    ),
    "TRAINING_DAMAGED": Reason(
        "The record of a training cannot be read.",
        "Delete the folder that the message names, and create the training again.",
    ),
    "TRAINING_EXISTS": Reason(
        "A training with this id exists, with other content.",
        "Use another id, or delete the training with DeleteTraining.",
    ),
    "TRAINING_NOT_FOUND": Reason(
        "The trainer has no training with this id.",
        "Create it with CreateTraining.",
    ),
    "UNKNOWN_ALGORITHM": Reason(
        "No algorithm of this name is installed.",
        "Use one that the message lists, or install its plug-in.",
    ),
    "UNKNOWN_METRICS_WRITER": Reason(
        "No metrics writer of this name is installed.",
        "Correct `--metrics`; the message lists what is available.",
    ),
    "UNKNOWN_VERSION": Reason(
        "A sample names a version that this training never made.",
        "Send samples that were made with weights of this training.",
    ),
    "WRONG_PARENT": Reason(
        "The step is meant for another version than the training is at.",
        "Read the current version with GetTraining, then repeat the steps after it or continue from it.",
    ),
}
