"""Errors as one line: the problem, the remedy, and the reason code."""

from __future__ import annotations

from accord.errors import AccordError, Unavailable


def explain(error: Exception) -> str:
    """One line for `error`. Unexpected errors explain how to see the traceback."""
    if isinstance(error, AccordError):
        return f"{_one_line(_message(error))} [{error.reason}]"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return _one_line(f"{where}{error.strerror or error} [{type(error).__name__}]")
    advice = "Run `accord --debug ...` for the traceback, and please report it"
    return _one_line(f"unexpected {type(error).__name__}: {error}. {advice}")


def _message(error: AccordError) -> str:
    details = [f"{v.field}: {v.description}" for v in error.violations if v.description not in error.message]
    message = "; ".join([error.message, *details])
    if isinstance(error, Unavailable) and error.reason in (Unavailable.reason, "CONNECTION_BROKEN"):
        message += ". Is the service running? To start all services: accord up. Logs are in logs/ of the state folder"
    return message


def _one_line(text: str) -> str:
    return " ".join(text.split())
