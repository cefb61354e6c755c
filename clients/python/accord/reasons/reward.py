"""Reasons of the reward service and its scorers."""

from __future__ import annotations

from accord.reasons.reason import Reason

REASONS = {
    "MODEL_NOT_LOADED": Reason(
        "The reward model is not loaded.",
        "Call LoadModel first.",
    ),
    "PYTHON_NOT_ALLOWED": Reason(
        "The scorer would run code from a file, which this service does not allow.",
        "Start the service with `--allow-python` if you trust the file.",
    ),
    "SCORER_BROKEN": Reason(
        "The file of a `python:` scorer cannot be loaded or lacks the function.",
        "Correct the file according to the message.",
    ),
    "SCORER_FAILED": Reason(
        "The scorer failed on this item.",
        "The message contains the scorer's error. Correct the scorer or the item.",
    ),
    "TOO_MANY_MODELS": Reason(
        "The maximum number of reward models is loaded, and all are in use.",
        "Unload one with UnloadModel, or raise `--max-models`.",
    ),
    "UNKNOWN_SCORER": Reason(
        "No scorer with this name is installed, or its file does not exist in the folder for scorer code.",
        "Use a scorer that the message lists, or correct the path; `--python-root` sets the folder.",
    ),
}
