"""Weights of a snapshot's records: from its own judgements, the same every time."""

from __future__ import annotations

import pytest
from tests.support.preference_service import Desk, pair

from accord.errors import InvalidArgument
from accord.preference import v1 as preference_v1

pytestmark = pytest.mark.process


async def weighted(desk: Desk, digest: str, **more: object) -> list[preference_v1.Record]:
    request = preference_v1.ExportSnapshotRequest(
        digest=digest,
        weighting=preference_v1.WEIGHTING_RELIABILITY,
        **more,  # type: ignore[arg-type]
    )
    return [record async for page in desk.stub.ExportSnapshot(request, timeout=60) for record in page.records]


async def test_who_agrees_with_the_others_counts_more_than_who_does_not(desk: Desk) -> None:
    records = []
    for number in range(60):
        for annotator in ("ann", "bob", "cid"):
            record = pair(number, annotator=annotator)
            if annotator == "cid" and number % 2:
                record.comparison.chosen_id, record.comparison.rejected_id = "b", "a"
            records.append(record)
    rating = pair(60)
    rating.ClearField("comparison")
    rating.rating.CopyFrom(preference_v1.Rating(completion_id="a", value=1))
    await desk.load([*records, rating])
    digest = (await desk.snapshot()).digest
    found = await weighted(desk, digest)
    assert len(found) == 181
    assert sum(record.weight for record in found) / len(found) == pytest.approx(1.0)
    wrong = [record.weight for record in found if "bad" in record.completions[0].text]
    assert len(wrong) == 30
    assert max(wrong) < 0.2
    by_annotator = {
        name: sum(r.weight for r in found if r.feedback.annotator.annotator_id == name) / 60 for name in ("ann", "cid")
    }
    assert by_annotator["ann"] > 1.5 * by_annotator["cid"]
    assert await weighted(desk, digest) == found
    # One side of the split has the weights that it has in the whole.
    known = {record.feedback.feedback_id: record.weight for record in found}
    side = await weighted(desk, digest, split=preference_v1.SPLIT_TRAIN)
    assert all(record.weight == known[record.feedback.feedback_id] for record in side)


async def test_without_weighting_there_are_no_weights_and_prompts_have_none(desk: Desk) -> None:
    await desk.load([pair(1)])
    [record] = await desk.export((await desk.snapshot()).digest)
    assert not record.HasField("weight")
    prompts = await desk.snapshot(preference_v1.SNAPSHOT_KIND_PROMPTS)
    with pytest.raises(InvalidArgument, match="weighting"):
        await weighted(desk, prompts.digest)
