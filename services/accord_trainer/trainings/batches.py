"""Batches of experience on disk: serialised messages, named by a digest of their content."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError, Message

from accord import atomic
from accord.digest import content_digest
from accord.errors import DataLoss, InvalidArgument, NotFound
from accord.trainer import v1 as trainer_v1
from accord_trainer.algorithm import Experience


@dataclass(frozen=True)
class StoredBatch:
    """A batch on disk. The id is derived from the digest, the digest from the records in order."""

    batch_id: str
    digest: str
    records: int


class BatchStore:
    """The batches of one training, below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, batch: Experience) -> StoredBatch:
        """Writes a batch; writing the same records again changes nothing. The id does not depend on the chunks of
        the records."""
        records = [*batch.samples, *batch.preferences]
        digest = _digest(records)
        batch_id = f"b-{digest[:32]}"
        path = self._path(batch_id)
        if not path.is_file():
            chunk = trainer_v1.ExperienceChunk(samples=batch.samples, preferences=batch.preferences)
            data = chunk.SerializeToString(deterministic=True)
            atomic.require_space(self.root, len(data))
            atomic.write_bytes(path, data)
        return StoredBatch(batch_id, digest, len(records))

    def get(self, batch_id: str) -> Experience:
        """A batch, after checking its content against its id. NotFound, BATCH_NOT_FOUND; DataLoss if it is damaged."""
        path = self._path(batch_id)
        if not path.is_file():
            raise NotFound(f"batch {batch_id} does not exist; send the experience again", reason="BATCH_NOT_FOUND")
        try:
            chunk = trainer_v1.ExperienceChunk.FromString(path.read_bytes())
        except DecodeError as error:
            raise _damaged(path) from error
        if f"b-{_digest([*chunk.samples, *chunk.preferences])[:32]}" != batch_id:
            raise _damaged(path)
        return Experience(list(chunk.samples), list(chunk.preferences))

    def _path(self, batch_id: str) -> Path:
        if not batch_id.startswith("b-") or not batch_id[2:].isalnum():
            raise InvalidArgument.at("batch_id", f"{batch_id!r} is not an id from PutExperience")
        return self.root / f"{batch_id}.binpb"


def batch_of(data: bytes) -> Experience:
    """The batch in a serialised chunk."""
    chunk = trainer_v1.ExperienceChunk.FromString(data)
    return Experience(list(chunk.samples), list(chunk.preferences))


def batch_message(batch: Experience) -> bytes:
    """The inverse of `batch_of`."""
    return trainer_v1.ExperienceChunk(samples=batch.samples, preferences=batch.preferences).SerializeToString()


def _digest(records: Iterable[Message]) -> str:
    return content_digest(
        type(record).DESCRIPTOR.name.encode() + b"\0" + record.SerializeToString(deterministic=True)
        for record in records
    )


def _damaged(path: Path) -> DataLoss:
    return DataLoss(f"{path} is damaged; delete it and send the experience again", reason="BATCH_DAMAGED")
