"""Reasons of the preference service."""

from __future__ import annotations

from accord.reasons.reason import Reason

REASONS = {
    "ANNOTATOR_EXCLUDED": Reason(
        "The annotator is excluded or has withdrawn, so they get no tasks and cannot give feedback.",
        "A withdrawal is final. To undo an exclusion, use `accord annotators reinstate`.",
    ),
    "ANNOTATOR_NOT_FOUND": Reason(
        "There is no annotator with this id and kind.",
        "List them with `accord annotators list`.",
    ),
    "ANNOTATOR_WITHDRAWN": Reason(
        "The annotator has withdrawn, and a withdrawal is final.",
        "Register a different annotator.",
    ),
    "COMPLETION_NOT_FOUND": Reason(
        "There is no completion with this id.",
        "Create it with CreateCompletions first.",
    ),
    "EMPTY_SNAPSHOT": Reason(
        "The filter matches no records, so the snapshot would be empty.",
        "Widen the filter; `accord preferences stats` shows the stored records.",
    ),
    "FEEDBACK_NOT_FOUND": Reason(
        "There is no feedback with this id.",
        "Check the id; ListFeedback lists all feedback.",
    ),
    "FEEDBACK_SUPERSEDED": Reason(
        "The feedback was already corrected or retracted.",
        "If it was corrected, change the newer feedback that the message names.",
    ),
    "LEASE_ENDED": Reason(
        "The lease of the task has expired or was released.",
        "Lease a task again. An answer that is submitted late is kept and marked as late.",
    ),
    "LEASE_MISMATCH": Reason(
        "The lease belongs to a different annotator or a different task.",
        "Submit feedback for the annotator and the task of the lease.",
    ),
    "LEASE_NOT_FOUND": Reason(
        "There is no lease with this id.",
        "Lease a task with LeaseTask.",
    ),
    "LEASE_USED": Reason(
        "The answer of this lease was retracted.",
        "Lease the task again.",
    ),
    "NOT_YOUR_FEEDBACK": Reason(
        "The feedback belongs to a different annotator.",
        "Correct or retract your own feedback only.",
    ),
    "PROMPT_DELETED": Reason(
        "The prompt was deleted and accepts no more feedback.",
        "Leave the prompt out, or lease a different task.",
    ),
    "PROMPT_NOT_FOUND": Reason(
        "There is no prompt with this id.",
        "Create it with CreatePrompts first.",
    ),
    "SNAPSHOT_NOT_FOUND": Reason(
        "There is no snapshot with this digest.",
        "Check the digest; ListSnapshots lists all snapshots.",
    ),
    "SPLIT_CHANGED": Reason(
        "The settings of the split differ from those with which the database was created.",
        "Start the service with the old `--heldout-fraction` and `--split-salt`, or with a different database.",
    ),
    "STREAM_BROKEN": Reason(
        "The stream of the request broke; none of its data was stored.",
        "Send the stream again.",
    ),
    "TASK_ANSWERED": Reason(
        "The annotator has already answered the task differently; the first answer is kept.",
        "To correct the first answer, set `feedback.supersedes` to its id.",
    ),
    "TASK_NOT_FLAGGED": Reason(
        "The task has no open flag to resolve.",
        "Check the task's state with ListFlags.",
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
