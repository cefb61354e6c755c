"""Imports complete records: checks them as they arrive and stores them in one transaction when the stream has ended.

Records wait in a spool (memory, then an unnamed temporary file), so that a slow sender does not block other clients:
the database is locked only while the rows are written. A broken stream, an invalid record or a crash leaves nothing
behind.
"""

from __future__ import annotations

import hashlib
import marshal
import struct
from collections.abc import AsyncIterator, Iterator
from tempfile import SpooledTemporaryFile
from typing import IO

from accord.errors import FieldViolation, InvalidArgument
from accord.preference import v1 as preference_v1
from accord_preference import converters
from accord_preference.annotators import check_annotator
from accord_preference.context import Context
from accord_preference.domain.judgement import read_criteria, read_judgement, read_text
from accord_preference.feedback.feedback_record import feedback_row, identified
from accord_preference.prompts import check_size
from accord_preference.storage.store import CompletionRow, FeedbackRow, PromptRow, Writer

SPOOL_BYTES = 16 * 2**20
_LENGTH = struct.Struct("<I")
# The size of a chunk that is stored at once: at most this many records or, if they are long, bytes.
CHUNK_RECORDS = 2000
CHUNK_BYTES = 8 * 2**20
# The rows of one record.
Rows = tuple[PromptRow, list[CompletionRow], FeedbackRow | None]


class Imports:
    """The part of the service that imports records."""

    def __init__(self, context: Context):
        self._context = context

    async def import_records(
        self, requests: AsyncIterator[preference_v1.ImportRecordsRequest]
    ) -> preference_v1.ImportRecordsResponse:
        """Stores all records of the stream or none. InvalidArgument names the record (from 0) and the field."""
        with SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            request_id, content = await self._receive(requests, spool)

            async def change(tx: Writer) -> preference_v1.ImportRecordsResponse:
                total = preference_v1.ImportRecordsResponse()
                for chunk in _spooled(spool):
                    await self._store(tx, chunk, total)
                return total

            return await self._context.once.run(request_id, content, preference_v1.ImportRecordsResponse, change)

    async def _receive(
        self, requests: AsyncIterator[preference_v1.ImportRecordsRequest], spool: IO[bytes]
    ) -> tuple[str, str]:
        """Checks and spools the whole stream: (request_id, digest of the records)."""
        request_id, count, first = "", 0, True
        content = hashlib.sha256(b"accord.preference.v1.ImportRecords\n")
        now_us = self._context.now_us()
        try:
            async for request in requests:
                if first:
                    request_id = request.request_id
                    if not request_id:
                        raise InvalidArgument.at("request_id", "must be set in the first message of the stream")
                elif request.request_id not in ("", request_id):
                    raise InvalidArgument.at("request_id", "differs from that of the first message. Send it only there")
                first = False
                for record in request.records:
                    rows = self._rows(record, f"records[{count}].", now_us)
                    data = record.SerializeToString(deterministic=True)
                    content.update(_LENGTH.pack(len(data)) + data)
                    # The spool holds rows, so that they are not built twice: plain tuples, which cannot run code when
                    # they are read.
                    spool.write(_packed(rows))
                    count += 1
        except InvalidArgument as error:
            raise _counted(error, count) from error
        return request_id, content.hexdigest()

    def _rows(self, record: preference_v1.ImportRecord, path: str, now_us: int) -> Rows:
        """The rows of one record that arrived at `now_us`. InvalidArgument names the invalid field."""
        settings = self._context.settings
        for index, turn in enumerate(record.prompt.messages):
            check_size(turn.content, settings.max_text_bytes, f"{path}prompt.messages[{index}].content")
        prompt = converters.prompt_row(
            record.prompt, record.source, f"{path}prompt", settings.heldout_fraction, settings.split_salt
        )
        answers: dict[str, CompletionRow] = {}
        for index, answer in enumerate(record.completions):
            if not answer.local_id or answer.local_id in answers:
                problem = "is used twice in this record" if answer.local_id else "must be set"
                raise InvalidArgument.at(f"{path}completions[{index}].local_id", problem)
            check_size(answer.text, settings.max_text_bytes, f"{path}completions[{index}].text")
            answers[answer.local_id] = converters.completion_row(
                prompt.prompt_id, answer, f"{path}completions[{index}]"
            )

        def resolve(field: str, name: str) -> str:
            if name not in answers:
                raise InvalidArgument.at(field, f"is not a completion of this record: {name!r}")
            return answers[name].completion_id

        judged = None
        if record.WhichOneof("judgement") is not None:
            check_annotator(record.annotator, f"{path}annotator")
            judgement = read_judgement(record, path, resolve)
            who = record.annotator
            criteria = read_criteria(record.criteria, path, judgement.fields, resolve)
            comment = read_text(record.comment, f"{path}comment")
            given = feedback_row(judgement, who, prompt, record.source, now_us, criteria=criteria, comment=comment)
            judged = identified(given)
        elif record.criteria:
            raise InvalidArgument.at(f"{path}criteria", "need a judgement, but this record has none")
        return prompt, list(answers.values()), judged

    async def _store(self, tx: Writer, chunk: list[Rows], total: preference_v1.ImportRecordsResponse) -> None:
        """Stores a chunk and adds the numbers of new rows to `total`."""
        total.prompts += await tx.add_prompts([prompt for prompt, _, _ in chunk])
        total.completions += await tx.add_completions([answer for _, answers, _ in chunk for answer in answers])
        judged = [feedback for _, _, feedback in chunk if feedback is not None]
        # A prompt keeps its first source, and feedback without a source gets the prompt's.
        unlabelled = [feedback.prompt_id for feedback in judged if not feedback.source]
        if unlabelled:
            kept = await tx.prompts(unlabelled)
            judged = [row if row.source else row._replace(label=kept[row.prompt_id].source) for row in judged]
        await tx.add_annotators([(row.annotator_id, row.annotator_kind) for row in judged], self._context.now_us())
        new = await tx.add_feedback(judged)
        total.feedback += new
        total.duplicates += len(judged) - new


def _packed(rows: Rows) -> bytes:
    """The serialised rows of one record, preceded by their length."""
    prompt, answers, feedback = rows
    # Converted, since marshal accepts only plain tuples.
    data = marshal.dumps((tuple(prompt), [tuple(answer) for answer in answers], feedback and tuple(feedback)))
    return _LENGTH.pack(len(data)) + data


def _spooled(spool: IO[bytes]) -> Iterator[list[Rows]]:
    """The spooled records, in chunks."""
    spool.seek(0)
    chunk: list[Rows] = []
    size = 0
    while head := spool.read(_LENGTH.size):
        data = spool.read(_LENGTH.unpack(head)[0])
        prompt, answers, feedback = marshal.loads(data)  # noqa: S302  written by this process, and private to it
        judged = None if feedback is None else FeedbackRow._make(feedback)
        chunk.append((PromptRow._make(prompt), [CompletionRow._make(answer) for answer in answers], judged))
        size += len(data)
        if len(chunk) == CHUNK_RECORDS or size > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _counted(error: InvalidArgument, received: int) -> InvalidArgument:
    """The same error with the number of the record in the metadata.

    The edge checks one message of the stream at a time and counts its records from 0; `received` records came in
    earlier messages.
    """
    numbers = []
    violations = []
    for violation in error.violations:
        field, number = _renumbered(violation.field, received if error.reason == "REQUIRED_FIELD_MISSING" else 0)
        violations.append(FieldViolation(field, violation.description))
        numbers += [number] if number is not None else []
    message = "; ".join(f"{one.field}: {one.description}" for one in violations) or error.message
    metadata = {**error.metadata, "record": str(min(numbers))} if numbers else error.metadata
    return InvalidArgument(message, reason=error.reason, metadata=metadata, violations=violations)


def _renumbered(field: str, received: int) -> tuple[str, int | None]:
    if not field.startswith("records["):
        return field, None
    index, _, rest = field.removeprefix("records[").partition("]")
    return f"records[{int(index) + received}]{rest}", int(index) + received
