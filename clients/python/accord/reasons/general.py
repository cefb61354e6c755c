"""The default reasons of accord.errors, one for each status code, for errors without a more specific reason."""

from __future__ import annotations

from accord.reasons.reason import Reason

REASONS = {
    "ABORTED": Reason(
        "Another caller changed the same object at the same time.",
        "Read it again, then repeat the call.",
    ),
    "ALREADY_EXISTS": Reason(
        "An object with this name already exists with different content.",
        "Choose a different name, or use the existing object.",
    ),
    "CANCELLED": Reason(
        "The caller cancelled the call or disconnected.",
        "Repeat the call if its result is still needed.",
    ),
    "DATA_LOSS": Reason(
        "A stored file or record is damaged.",
        "Follow the message, which names the damaged file. Restore it from a backup, or delete it if the message "
        "recommends it.",
    ),
    "DEADLINE_EXCEEDED": Reason(
        "The response did not arrive before the call's deadline.",
        "Repeat the call with the same `request_id`; if the call takes long, raise its timeout.",
    ),
    "FAILED_PRECONDITION": Reason(
        "The service is not in the state that the call needs.",
        "Read the message, change the state that it names, then call again.",
    ),
    "INTERNAL": Reason(
        "The service has a fault, or its response contradicts the request.",
        "Check the log of the service and report the fault with the traceback.",
    ),
    "INVALID_ARGUMENT": Reason(
        "A value in the request, a setting or a file is invalid; the field violations name it.",
        "Correct the fields that the message names.",
    ),
    "NOT_FOUND": Reason(
        "The requested object does not exist.",
        "Check the name; list the existing objects first.",
    ),
    "OUT_OF_RANGE": Reason(
        "The requested position is past the end of the data.",
        "Request a smaller position.",
    ),
    "PERMISSION_DENIED": Reason(
        "The caller does not have permission for this operation.",
        "Use credentials with this permission, or ask the person who operates the service.",
    ),
    "RESOURCE_EXHAUSTED": Reason(
        "A limit was reached: a queue, the disk, or the size of a message.",
        "The message names the limit. Wait, or send less.",
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
        "The service does not support this operation.",
        "Use a service or a version that supports it.",
    ),
    "UNKNOWN": Reason(
        "The error has a status code that Accord does not use.",
        "Read the message, and check that the address belongs to an Accord service.",
    ),
}
