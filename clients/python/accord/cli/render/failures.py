"""Errors as one line: what is wrong, what to do, and the reason for programs."""

from __future__ import annotations

from accord.errors import AccordError, Unavailable


def explain(error: Exception) -> str:
    """One line for `error`; faults of our own say how to see the traceback."""
    if isinstance(error, AccordError):
        return f"{_one_line(_message(error))} [{error.reason}]"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return _one_line(f"{where}{error.strerror or error} [{type(error).__name__}]")
    return _one_line(f"unexpected {type(error).__name__}: {error}; `accord --debug ...` shows where; please report it")


def _message(error: AccordError) -> str:
    unsaid = [f"{v.field}: {v.description}" for v in error.violations if v.description not in error.message]
    message = "; ".join([error.message, *unsaid])
    if isinstance(error, Unavailable) and error.reason in (Unavailable.reason, "CONNECTION_BROKEN"):
        message += "; is it running? `accord up` starts everything, logs are in the state folder's logs/"
    return message


def _one_line(text: str) -> str:
    return " ".join(text.split())
