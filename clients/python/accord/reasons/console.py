"""Reasons of the web console."""

from __future__ import annotations

from accord.reasons.reason import Reason

REASONS = {
    "BAD_FORM": Reason(
        "The form that the browser sent is damaged.",
        "Load the page again and repeat.",
    ),
    "BAD_INVITE": Reason(
        "The invite link is damaged.",
        "Copy the whole link, or ask for a new one.",
    ),
    "BAD_TOKEN": Reason(
        "The operator's token is wrong or missing.",
        "Use the link that the console prints when it starts; programs send `Authorization: Bearer TOKEN`.",
    ),
    "CSRF": Reason(
        "The form does not belong to this session.",
        "Load the page again and repeat.",
    ),
    "FORM_TOO_LARGE": Reason(
        "The form is too large.",
        "Write less.",
    ),
    "INVITE_REVOKED": Reason(
        "The invite was revoked.",
        "Ask for a new one (`accord console invite`).",
    ),
    "NO_PROMPTS": Reason(
        "There are no held-out prompts for the policies to answer.",
        "Import prompts; a share of them is held out.",
    ),
    "NO_SESSION": Reason(
        "The browser has no valid session.",
        "Open the invite link or the operator's link again.",
    ),
    "OLD_PAGE": Reason(
        "The page is out of date: its task is no longer yours, or it was opened with a different invite.",
        "Load the page again.",
    ),
    "SERVICE_UNKNOWN": Reason(
        "The console does not know a service that the page needs.",
        "Start all services with `accord up`, or pass the address of the service to the console.",
    ),
    "UNKNOWN_ANNOTATOR": Reason(
        "No annotator with this name has an invite.",
        "List the invites with `accord console invites`.",
    ),
    "UNKNOWN_COMPARISON": Reason(
        "There is no comparison with this id.",
        "Open the comparison from its list in the console.",
    ),
    "UNKNOWN_TEXT": Reason(
        "The task has no such text.",
        "Go back to the task.",
    ),
}
