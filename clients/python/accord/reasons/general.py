"""Reasons of errors that name no other: one for each status code, the defaults of accord.errors."""

from __future__ import annotations

from accord.reasons.reason import Reason

REASONS = {
    "ABORTED": Reason(
        "Another caller changed the same thing at the same time.",
        "Read it again, then repeat the call.",
    ),
    "ALREADY_EXISTS": Reason(
        "An object with this name exists already, with different content.",
        "Use another name, or use the existing object.",
    ),
    "CANCELLED": Reason(
        "The caller cancelled the call or disconnected.",
        "Repeat the call if its result is still needed.",
    ),
    "DATA_LOSS": Reason(
        "A stored file or record is damaged.",
        "Follow the message, which names the damaged file. Restore it from a backup, or delete it if the message "
        "says so.",
    ),
    "DEADLINE_EXCEEDED": Reason(
        "The answer did not arrive before the call's deadline.",
        "Repeat the call with the same `request_id`; if the call is long, give it a longer timeout.",
    ),
    "FAILED_PRECONDITION": Reason(
        "The service is not in the state that the call needs.",
        "Read the message, change the state that it names, then call again.",
    ),
    "INTERNAL": Reason(
        "The service has a fault, or its answer contradicts the request.",
        "Look into the log of the service and report the fault with the trace.",
    ),
    "INVALID_ARGUMENT": Reason(
        "A value in the request, a setting or a file is wrong; the field violations name it.",
        "Correct the fields that the message names.",
    ),
    "NOT_FOUND": Reason(
        "What the request names does not exist.",
        "Check the name; list what exists first.",
    ),
    "OUT_OF_RANGE": Reason(
        "The request asks for something past the end of what exists.",
        "Ask for a smaller position.",
    ),
    "PERMISSION_DENIED": Reason(
        "The caller may not do this.",
        "Use credentials that may, or ask the person who runs the service.",
    ),
    "RESOURCE_EXHAUSTED": Reason(
        "A limit is reached: a queue, the disk, or the size of a message.",
        "Wait or send less; the message names the limit.",
    ),
    "UNAUTHENTICATED": Reason(
        "The caller did not prove its identity.",
        "Send the credentials that the service expects.",
    ),
    "UNAVAILABLE": Reason(
        "The service cannot be reached.",
        "Check that it runs and that the address is right, then repeat the call.",
    ),
    "UNIMPLEMENTED": Reason(
        "The service does not offer this.",
        "Use a service or a version that does.",
    ),
    "UNKNOWN": Reason(
        "The error came with a status code that Accord does not use.",
        "Read the message, and check that the address belongs to an Accord service.",
    ),
}
