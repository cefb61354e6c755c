"""The durable memory of one run: each result is recorded once, before it has an effect, and read back on resume.

A fact is a message under a key (`2/policy/7/step`) or a file of messages (`2/policy/7/experience`). Files are written
whole, synced and renamed before the database records them with their SHA-256. A crash therefore leaves at most an
unreferenced file, which garbage collection removes.
"""

from __future__ import annotations

import asyncio
import io
import shutil
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from google.protobuf import proto
from google.protobuf.message import Message

from accord import atomic
from accord.errors import DataLoss
from accord_controller.store.store import Entry, Store

M = TypeVar("M", bound=Message)


class Ledger:
    """One run's facts. `message_entry` and `file_entry` create entries; RunRecorder makes them durable."""

    def __init__(self, folder: Path, entries: Iterable[Entry]) -> None:
        self.folder = folder
        self._entries = {entry.key: entry for entry in entries}

    @classmethod
    async def load(cls, store: Store, run_id: str, state_dir: Path) -> Ledger:
        """Reads the ledger from the database."""
        return cls(run_folder(state_dir, run_id), await store.entries(run_id))

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def names(self) -> list[str]:
        """Every key, sorted."""
        return sorted(self._entries)

    def get(self, key: str, kind: type[M]) -> M | None:
        """The message recorded under `key`, or None. DataLoss if it is another kind of message."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        _check_kind(entry, kind)
        return kind.FromString(entry.payload)

    def need(self, key: str, kind: type[M]) -> M:
        """The message recorded under `key`; DataLoss, LEDGER_INCOMPLETE, if there is none."""
        found = self.get(key, kind)
        if found is None:
            raise DataLoss(f"the ledger in {self.folder} has no {key}", reason="LEDGER_INCOMPLETE")
        return found

    async def read(self, key: str, kind: type[M]) -> list[M] | None:
        """The messages of the file recorded under `key`, or None. DataLoss if the file is missing or damaged."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        _check_kind(entry, kind)
        path = self.folder / str(entry.path)
        try:
            data = await asyncio.to_thread(path.read_bytes)
        except FileNotFoundError as error:
            raise DataLoss(
                f"{path} is missing, but the run needs it. Restore the file", reason="LEDGER_FILE_LOST"
            ) from error
        if sha256(data).hexdigest() != entry.digest:
            raise DataLoss(
                f"{path} is damaged: it does not match the digest recorded for {key}. Restore an intact copy",
                reason="LEDGER_FILE_DAMAGED",
            )
        return parse_messages(data, kind)

    def message_entry(self, key: str, message: Message) -> Entry:
        """The entry of one small message."""
        payload = message.SerializeToString(deterministic=True)
        return Entry(key, message.DESCRIPTOR.full_name, payload, None, sha256(payload).hexdigest())

    async def file_entry(self, key: str, kind: type[M], messages: Sequence[M]) -> Entry:
        """Writes `messages` durably to a file and returns the entry that will name it."""
        data = serialize_messages(messages)
        digest = sha256(data).hexdigest()
        path = f"{key}.{digest[:12]}.pb"
        atomic.require_space(self.folder, len(data))
        await asyncio.to_thread(atomic.write_bytes, self.folder / path, data)
        return Entry(key, kind.DESCRIPTOR.full_name, b"", path, digest)

    def added(self, entries: Iterable[Entry], forgotten: Iterable[str] = ()) -> None:
        """Adds entries that the database has just made durable."""
        for key in forgotten:
            self._entries.pop(key, None)
        self._entries.update({entry.key: entry for entry in entries})

    def files(self) -> set[Path]:
        """The files that the ledger names."""
        return {self.folder / entry.path for entry in self._entries.values() if entry.path}


def run_folder(state_dir: Path, run_id: str) -> Path:
    """The folder of a run's files."""
    return state_dir / "runs" / run_id


def unnamed_files(state_dir: Path, named: set[Path]) -> list[Path]:
    """Files below runs/ that no ledger names; a crash between writing and recording leaves them behind."""
    root = state_dir / "runs"
    return [path for path in sorted(root.rglob("*")) if path.is_file() and path not in named] if root.is_dir() else []


def remove_empty_folders(state_dir: Path) -> None:
    """Removes empty folders below runs/."""
    root = state_dir / "runs"
    if root.is_dir():
        for folder in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
            if not any(folder.iterdir()):
                shutil.rmtree(folder)


def serialize_messages(messages: Iterable[Message]) -> bytes:
    """Messages one after the other, each preceded by its length (varint); equal messages give equal bytes."""
    out = io.BytesIO()
    for message in messages:
        payload = message.SerializeToString(deterministic=True)
        out.write(_varint(len(payload)))
        out.write(payload)
    return out.getvalue()


def parse_messages(data: bytes, kind: type[M]) -> list[M]:
    """The reverse of `serialize_messages`."""
    source, found = io.BytesIO(data), []
    while (message := proto.parse_length_prefixed(kind, source)) is not None:
        found.append(message)
    return found


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _check_kind(entry: Entry, kind: type[Message]) -> None:
    if entry.kind != kind.DESCRIPTOR.full_name:
        raise DataLoss(
            f"{entry.key} in the ledger is a {entry.kind}, not a {kind.DESCRIPTOR.full_name}", reason="LEDGER_KIND"
        )
