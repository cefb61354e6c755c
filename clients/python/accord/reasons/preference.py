"""Reasons of the preference service."""

from __future__ import annotations

from accord.reasons.reason import Reason

REASONS = {
    "ANNOTATOR_EXCLUDED": Reason(
        "The annotator is excluded or has withdrawn: no tasks, no feedback.",
        "Lift an exclusion with `accord annotators reinstate`; a withdrawal is final.",
    ),
    "ANNOTATOR_NOT_FOUND": Reason(
        "There is no annotator of this name and kind.",
        "List them with `accord annotators list`.",
    ),
    "ANNOTATOR_WITHDRAWN": Reason(
        "The annotator has withdrawn, which is final.",
        "Register another annotator.",
    ),
    "COMPLETION_NOT_FOUND": Reason(
        "There is no completion with this id.",
        "Create it with CreateCompletions first.",
    ),
    "EMPTY_SNAPSHOT": Reason(
        "The filter matches nothing, so there is nothing to keep in a snapshot.",
        "Widen the filter; `accord preferences stats` shows what is stored.",
    ),
    "FEEDBACK_NOT_FOUND": Reason(
        "There is no feedback with this id.",
        "Check the id; ListFeedback lists what exists.",
    ),
    "FEEDBACK_SUPERSEDED": Reason(
        "The feedback was corrected or taken back already.",
        "If it was corrected, change the newer feedback that the message names.",
    ),
    "LEASE_ENDED": Reason(
        "The lease of the task has run out or was given back.",
        "Lease a task again; an answer that is submitted late is kept and marked late.",
    ),
    "LEASE_MISMATCH": Reason(
        "The lease belongs to another annotator or another task.",
        "Submit feedback for the annotator and the task of the lease.",
    ),
    "LEASE_NOT_FOUND": Reason(
        "There is no lease with this id.",
        "Lease a task with LeaseTask.",
    ),
    "LEASE_USED": Reason(
        "The answer that was given under this lease was retracted.",
        "Lease the task again.",
    ),
    "NOT_YOUR_FEEDBACK": Reason(
        "The feedback was given by another annotator.",
        "Correct or retract your own feedback only.",
    ),
    "PROMPT_DELETED": Reason(
        "The prompt was deleted; no more feedback on it is accepted.",
        "Leave it out, or take another task.",
    ),
    "PROMPT_NOT_FOUND": Reason(
        "There is no prompt with this id.",
        "Create it with CreatePrompts first.",
    ),
    "SNAPSHOT_NOT_FOUND": Reason(
        "There is no snapshot with this digest.",
        "Check the digest; ListSnapshots lists what exists.",
    ),
    "SPLIT_CHANGED": Reason(
        "The settings of the split differ from those that the database was made with.",
        "Start the service with the old `--heldout-fraction` and `--split-salt`, or with another database.",
    ),
    "STREAM_BROKEN": Reason(
        "The stream of the request broke; nothing of it was kept.",
        "Send the stream again.",
    ),
    "TASK_ANSWERED": Reason(
        "The annotator has already answered the task differently; the first answer is kept.",
        "To correct it, name the first feedback in `feedback.supersedes`.",
    ),
    "TASK_NOT_FLAGGED": Reason(
        "The task has no open flag to resolve.",
        "Look at the task's state with ListFlags.",
    ),
    "TASK_NOT_FOUND": Reason(
        "There is no task with this id.",
        "Check the id.",
    ),
    "TEXT_TOO_LONG": Reason(
        "A text is longer than the service accepts.",
        "Shorten it, or raise `--max-text-bytes`.",
    ),
}
