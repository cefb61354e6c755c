"""Import: all or nothing, whatever ends it; wrong records named; duplicates counted; fast."""

from __future__ import annotations

import asyncio
import math
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.preference_service import Desk, pair, person

from accord.channel import open_channel
from accord.errors import AccordError, InvalidArgument
from accord.preference import v1 as preference_v1
from accord_preference.service import build
from accord_preference.settings import PreferenceSettings

pytestmark = pytest.mark.process

Change = tuple[str, preference_v1.ImportRecord]


def wrong_records() -> dict[str, Change]:
    """Case -> (field that is wrong, record)."""
    cases: dict[str, Change] = {}

    def case(name: str, field: str) -> preference_v1.ImportRecord:
        record = pair(1)
        cases[name] = (field, record)
        return record

    case("itself", "comparison.rejected_id").comparison.rejected_id = "a"
    case("same text twice", "comparison.rejected_id").completions[1].text = "good answer 1"
    case("unknown local id", "comparison.chosen_id").comparison.chosen_id = "c"
    case("nan margin", "comparison.margin").comparison.margin = math.nan
    case("nobody", "annotator.annotator_id").ClearField("annotator")
    case("unknown kind", "annotator.kind").annotator.kind = 77  # type: ignore[assignment]
    case("role", "prompt.messages[0].role").prompt.messages[0].role = "robot"
    case("no prompt", "prompt").ClearField("prompt")
    case("local id twice", "completions[1].local_id").completions[1].local_id = "a"
    case("rating without value", "rating.value").rating.completion_id = "a"
    return cases


@pytest.mark.parametrize("name", wrong_records())
async def test_one_wrong_record_keeps_nothing_and_is_named(desk: Desk, name: str) -> None:
    field, record = wrong_records()[name]
    records = [pair(number) for number in range(250)]
    records[207] = record
    with pytest.raises(InvalidArgument) as caught:
        await desk.load(records)
    assert caught.value.violations[0].field == f"records[207].{field}"
    assert caught.value.metadata["record"] == "207"
    stats = await desk.stats()
    assert (stats.prompts, stats.completions, stats.comparisons) == (0, 0, 0)


async def test_counts_are_of_what_is_new(desk: Desk) -> None:
    first = await desk.load([pair(1), pair(2), pair(2), pair(2, annotator="bob")])
    assert (first.prompts, first.completions, first.feedback, first.duplicates) == (2, 4, 3, 1)
    second = await desk.load([pair(2), pair(3), preference_v1.ImportRecord(prompt=pair(4).prompt)])
    assert (second.prompts, second.completions, second.feedback, second.duplicates) == (2, 2, 1, 1)


async def test_broken_stream_keeps_nothing(desk: Desk) -> None:
    sent = asyncio.Event()

    async def stream() -> AsyncIterator[preference_v1.ImportRecordsRequest]:
        yield preference_v1.ImportRecordsRequest(request_id="r", records=[pair(number) for number in range(50)])
        sent.set()
        await asyncio.sleep(60)

    call = asyncio.ensure_future(desk.stub.ImportRecords(stream(), timeout=60))
    await sent.wait()
    await asyncio.sleep(0.2)
    call.cancel()
    with pytest.raises((asyncio.CancelledError, AccordError)):
        await call
    await asyncio.sleep(0.3)
    assert (await desk.stats()).prompts == 0


SENDER = """
import asyncio, os, sys
sys.path.insert(0, sys.argv[2])
from tests.support.preference_service import pair
from accord.channel import open_channel
from accord.preference import v1 as preference_v1

async def stream():
    for start in range(0, 10**9, 20):
        yield preference_v1.ImportRecordsRequest(
            request_id="r" if start == 0 else "", records=[pair(number) for number in range(start, start + 20)]
        )
        if start == 2000:
            print("sent", flush=True)

async def main():
    async with open_channel(sys.argv[1]) as channel:
        await preference_v1.PreferenceServiceStub(channel).ImportRecords(stream(), timeout=60)

asyncio.run(main())
"""


async def test_sender_that_is_killed_keeps_nothing(desk: Desk) -> None:
    # Its connection just ends: to the server that looks much like the end of the stream.
    sender = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SENDER, desk.address, str(Path(__file__).parent), stdout=asyncio.subprocess.PIPE
    )
    assert sender.stdout is not None
    assert await sender.stdout.readline() == b"sent\n"
    sender.send_signal(signal.SIGKILL)
    await sender.wait()
    await asyncio.sleep(0.7)
    assert (await desk.stats()).prompts == 0


async def test_stream_without_request_id_is_refused(desk: Desk) -> None:
    async def stream() -> AsyncIterator[preference_v1.ImportRecordsRequest]:
        yield preference_v1.ImportRecordsRequest(records=[pair(1)])

    with pytest.raises(InvalidArgument, match="request_id"):
        await desk.stub.ImportRecords(stream(), timeout=10)


async def test_service_killed_in_the_middle_of_an_import_leaves_nothing(tmp_path: Path) -> None:
    settings = PreferenceSettings(state_dir=tmp_path)
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "accord_preference",
        "--state-dir",
        str(tmp_path),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert server.stdout is not None
    address = re.split(r"serving at ", (await server.stdout.readline()).decode().strip())[1]
    wal = tmp_path / "preference.db-wal"
    size = wal.stat().st_size if wal.exists() else 0

    async def stream() -> AsyncIterator[preference_v1.ImportRecordsRequest]:
        for start in range(0, 12_000, 1000):
            records = [pair(number) for number in range(start, start + 1000)]
            for record in records:
                record.completions[0].text += " and more" * 100  # enough that pages reach the file before the end
            yield preference_v1.ImportRecordsRequest(request_id="r" if start == 0 else "", records=records)

    async with open_channel(address) as channel:
        stub = preference_v1.PreferenceServiceStub(channel)
        call = asyncio.ensure_future(stub.ImportRecords(stream(), timeout=60))
        while not call.done() and (wal.stat().st_size if wal.exists() else 0) <= size + 100_000:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        assert not call.done()
        server.send_signal(signal.SIGKILL)
        await server.wait()
        with pytest.raises(AccordError):
            await call
    again = await Desk(settings).start()
    assert (await again.stats()).prompts == 0
    assert (await again.load([pair(1)])).feedback == 1
    await again.stop()


async def test_ten_thousand_pairs_take_seconds(desk: Desk) -> None:
    records = [pair(number) for number in range(10_000)]
    start = time.process_time()
    response = await desk.load(records, size=500)
    seconds = time.process_time() - start
    assert (response.prompts, response.completions, response.feedback) == (10_000, 20_000, 10_000)
    assert seconds < 10  # client and server together; processor time, as other tests may run beside this one
    assert len(await desk.export((await desk.snapshot()).digest)) == 10_000


async def test_long_answers_are_stored_in_parts_of_one_import(desk: Desk) -> None:
    records = [pair(number) for number in range(24)]
    for number, record in enumerate(records):
        record.completions[0].text = f"{number} " + "long " * 180_000
    done = await desk.load(records, size=4)
    assert (done.prompts, done.completions, done.feedback, done.duplicates) == (24, 48, 24, 0)
    again = await desk.load([*records, pair(99)], size=4)
    assert (again.prompts, again.completions, again.feedback, again.duplicates) == (1, 2, 1, 24)
    digest = (await desk.snapshot()).digest
    assert (
        sorted(len(record.completions[0].text) > 900_000 for record in await desk.export(digest))
        == [False] + [True] * 24
    )


async def test_a_prompt_keeps_its_first_source_and_feedback_without_one_goes_by_it(desk: Desk) -> None:
    await desk.prompt("question 1", source="first")
    unnamed = pair(1, source="")
    await desk.load([unnamed, pair(2, source="second")])
    assert [(one.source, one.count) for one in (await desk.stats()).feedback] == [("first", 1), ("second", 1)]
    assert (await desk.snapshot(sources=["first"])).train_records == 1


async def test_others_are_served_while_a_slow_sender_imports(desk: Desk) -> None:
    begun, end = asyncio.Event(), asyncio.Event()

    async def stream() -> AsyncIterator[preference_v1.ImportRecordsRequest]:
        yield preference_v1.ImportRecordsRequest(request_id="r", records=[pair(1)])
        begun.set()
        await end.wait()
        yield preference_v1.ImportRecordsRequest(records=[pair(2)])

    call = asyncio.ensure_future(desk.stub.ImportRecords(stream(), timeout=60))
    await begun.wait()
    await asyncio.wait_for(desk.prompt("written meanwhile"), 5)
    end.set()
    assert (await call).prompts == 2


async def test_annotators_of_imports_keep_their_kind(desk: Desk) -> None:
    record = pair(1)
    record.annotator.CopyFrom(person("alice"))
    await desk.load([record])
    (exported,) = await desk.export((await desk.snapshot()).digest)
    assert exported.feedback.annotator == person("alice")


async def test_damaged_database_is_told_at_start(tmp_path: Path) -> None:
    (tmp_path / "preference.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(AccordError, match="is not an Accord database") as caught:
        await build(PreferenceSettings(state_dir=tmp_path))
    assert caught.value.reason == "NOT_A_DATABASE"
