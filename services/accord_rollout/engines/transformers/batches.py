"""Which samples are generated together."""

from __future__ import annotations

from collections.abc import Sequence

from accord_rollout.engine import Job


def batches(jobs: Sequence[Job], max_batch_size: int) -> list[list[Job]]:
    """Jobs in batches of at most `max_batch_size`, similar prompt lengths together, so that little is padded.

    The composition depends on the jobs alone: one request gives the same batches wherever and whenever it runs.
    """
    ordered = sorted(jobs, key=lambda job: (len(job.prompt_token_ids), job.index))
    return [ordered[start : start + max_batch_size] for start in range(0, len(ordered), max_batch_size)]
