"""Reasons of the Python SDK and the command line."""

from __future__ import annotations

from accord.reasons.reason import Reason

REASONS = {
    "ARTIFACT_DAMAGED": Reason(
        "A file of the model was damaged in transfer, or is outside the model.",
        "Export the model again.",
    ),
    "BAD_LINE": Reason(
        "A line of a data file is invalid; the message has its number.",
        "Correct the line.",
    ),
    "BAD_RUN_FILE": Reason(
        "The run file has an error; the field violations name it.",
        "Correct it according to the message; the reference of the run file lists every field.",
    ),
    "BAD_YAML": Reason(
        "The text is not valid YAML, or has a duplicate key.",
        "Correct the line that the message names.",
    ),
    "CLIENT_CLOSED": Reason(
        "The client was closed before the call.",
        "Create a new client.",
    ),
    "CONNECTION_BROKEN": Reason(
        "The connection to the service broke during the call.",
        "Repeat the call with the same `request_id`.",
    ),
    "CONSOLE_NOT_RUNNING": Reason(
        "No console is running on this machine.",
        "Start one with `accord up` or `accord console`.",
    ),
    "CONSOLE_RUNS": Reason(
        "A console is already running on this machine.",
        "Use the console that the message names, or stop it first.",
    ),
    "CONTROLLER_NOT_INSTALLED": Reason(
        "The controller is not installed in this environment.",
        "Install it: `pip install 'accord-rlhf[all]'`.",
    ),
    "CONTROLLER_NOT_STARTED": Reason(
        "The controller exited during its start, or was not ready in time.",
        "Check its log, which the message names.",
    ),
    "CONTROLLER_STUCK": Reason(
        "The controller did not stop in time and was killed; runs continue from their last recorded step.",
        "Check its log, then start it again.",
    ),
    "DESTINATION_EXISTS": Reason(
        "The destination of the export exists and is not empty.",
        "Choose a different folder, or remove this one.",
    ),
    "JUDGE_REFUSED": Reason(
        "The endpoint of the judge refused the request, or is not OpenAI-compatible.",
        "Check `url`, `model` and the API key of the judge.",
    ),
    "JUDGE_UNREACHABLE": Reason(
        "The endpoint of the judge did not answer, or failed.",
        "Check that it is running and reachable; a waiting run retries automatically.",
    ),
    "NOTHING_TO_EXPORT": Reason(
        "No records match the export.",
        "Change the form or the filter; `accord preferences stats` shows the stored records.",
    ),
    "NOTHING_TO_RESUME": Reason(
        "There is no unfinished run.",
        "List all runs with `accord runs list`.",
    ),
    "NOT_INSTALLED": Reason(
        "Parquet needs pyarrow, which is not installed.",
        "Install it: `pip install 'accord-rlhf[parquet]'`.",
    ),
    "NOT_IN_FORMAT": Reason(
        "The format cannot hold these records.",
        "Export in a different format, according to the message.",
    ),
    "NO_FILE": Reason(
        "There is no file at this path.",
        "Check the path.",
    ),
    "NO_REPLICA": Reason(
        "No rollout replica is serving.",
        "Check that the rollout services are running and have weights.",
    ),
    "NO_RUN_FILE": Reason(
        "There is no run file at this path.",
        "Check the path.",
    ),
    "NO_SAMPLES": Reason(
        "No sample could be generated.",
        "Read the message or the retry events, and check the rollout service.",
    ),
    "NO_SUCH_REPLICA": Reason(
        "The pool has no replica at this address.",
        "Use an address of the pool.",
    ),
    "REFUSED": Reason(
        "An engine swap was refused, and the controller recorded no reason.",
        "Read the events of the run with `accord runs watch`.",
    ),
    "REPLICA_REMOVED": Reason(
        "The replica was removed before it finished its samples.",
        "Repeat the request; the other replicas serve it.",
    ),
    "REPORT_NOT_INSTALLED": Reason(
        "The HTML report needs packages that are not installed.",
        "Install them: `pip install 'accord-rlhf[report]'`, or use `--format json` or `--format table`.",
    ),
    "SEVERAL_FORMS": Reason(
        "There are records of several forms, and a file can contain only one form.",
        "Choose one with `--form`.",
    ),
    "STREAM_INCOMPLETE": Reason(
        "The rollout service ended the stream before all samples arrived.",
        "Repeat the request with the same `request_id`.",
    ),
    "TLS_ENVIRONMENT": Reason(
        "Only one of `ACCORD_TLS_CERTIFICATE` and `ACCORD_TLS_KEY` is set.",
        "Set both, or neither.",
    ),
    "UNEXPECTED_SAMPLE": Reason(
        "The rollout service sent a sample that was not requested.",
        "Check the engine with `accord conformance`.",
    ),
    "UNKNOWN_CALL": Reason(
        "The service does not have this call: it is older than the client, or is a different service.",
        "Upgrade the service, or check the address.",
    ),
    "UNKNOWN_FORMAT": Reason(
        "No data format with this name is installed.",
        "Use one that the message lists, or install its plug-in.",
    ),
}
