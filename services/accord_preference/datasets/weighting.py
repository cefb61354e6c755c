"""Weights of a snapshot's records: how much each judgement counts in training, computed from the judgements alone."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict, defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from accord_preference.context import Context
from accord_preference.domain.pairwise import Pair, choices
from accord_preference.quality.dawid_skene import PRIOR_RIGHT, PRIOR_WRONG, estimate, normalised, weights
from accord_preference.storage.store import FeedbackRow, SnapshotRow

PAGE = 1000
KEPT = 4

Floats = npt.NDArray[np.float64]


class Weighting:
    """Computes weights and caches those of the last few snapshots, which never change."""

    def __init__(self, context: Context):
        self._context = context
        self._known: OrderedDict[str, Floats] = OrderedDict()

    async def of(self, snapshot: SnapshotRow) -> Floats:
        """One weight per record, in canonical order, with mean 1."""
        if snapshot.digest not in self._known:
            rows: list[FeedbackRow] = []
            after: tuple[int | str, ...] = ()
            async with self._context.store.reading() as tx:
                while page := await tx.snapshot_page(snapshot, after, PAGE, 0):
                    rows += [row.feedback for row in page if row.feedback is not None]
                    after = page[-1].position
            self._known[snapshot.digest] = await asyncio.to_thread(weigh, rows)
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(snapshot.digest)
        return self._known[snapshot.digest]


def weigh(rows: Sequence[FeedbackRow]) -> Floats:
    """The weight of each judgement is max(0, 2 P - 1), scaled to mean 1. P is the probability that the judgement is
    right (`dawid_skene.estimate`), averaged over the choices of a ranking; for a rating, P is its annotator's accuracy
    in choices. Each kind of annotator is estimated separately."""
    found = np.zeros(len(rows))
    places: dict[int, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[row.annotator_kind].append(place)
    for mine in places.values():
        found[mine] = _weigh_kind([rows[place] for place in mine])
    return normalised(found)


def _weigh_kind(rows: Sequence[FeedbackRow]) -> Floats:
    pairs: dict[Pair, int] = {}
    names: dict[str, int] = {}
    pair, who, label, owner = [], [], [], []
    for place, row in enumerate(rows):
        annotator = names.setdefault(row.annotator_id, len(names))
        for choice, chosen in choices(row.kind, json.loads(row.judgement)):
            pair.append(pairs.setdefault(choice, len(pairs)))
            who.append(annotator)
            label.append(chosen)
            owner.append(place)
    known = estimate(np.array(pair, dtype=np.int64), np.array(who, dtype=np.int64), np.array(label, dtype=np.int64))
    voted = np.bincount(np.array(owner, dtype=np.int64), minlength=len(rows))
    summed = np.bincount(np.array(owner, dtype=np.int64), weights(known.right), len(rows))
    # Ratings have no choices.
    accuracy = np.full(len(names), PRIOR_RIGHT / (PRIOR_RIGHT + PRIOR_WRONG))
    accuracy[: len(known.accuracy)] = known.accuracy
    rated = weights(accuracy[[names[row.annotator_id] for row in rows]])
    return np.where(voted > 0, summed / np.maximum(voted, 1), rated)
