"""The order in which answers were shown, to find out whether people prefer the first one."""

from __future__ import annotations

import json
import os
from pathlib import Path

from accord_console.annotation.task_page import Slip


class PresentationLog:
    """A file of one JSON object for each saved answer: `feedback_id`, `task_id`, `shown` (completion ids, first to
    last). An answer that was sent twice may be recorded twice, with the same content."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def record(self, feedback_id: str, slip: Slip) -> None:
        """Appends a line; lines of concurrent writers never mix."""
        line = json.dumps({"feedback_id": feedback_id, "task_id": slip.task_id, "shown": list(slip.shown)}) + "\n"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)
