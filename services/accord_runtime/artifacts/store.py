"""Published folders that other services read."""

from __future__ import annotations

from pathlib import Path

from accord.artifact import v1 as artifact_v1
from accord.digest import file_digest
from accord.errors import NotFound
from accord_runtime.artifacts.paths import inside

CHUNK_BYTES = 2**20


class ArtifactStore:
    """Published folders below `root`, one for each artifact id. Nothing outside `root` is read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._digests: dict[tuple[Path, int, int], str] = {}

    def folder(self, artifact_id: str) -> Path:
        """The folder of an artifact. NotFound, ARTIFACT_NOT_FOUND."""
        path = inside(self.root, artifact_id)
        if not path.is_dir():
            raise NotFound(
                f"artifact {artifact_id} does not exist. It was never published, or it was freed",
                reason="ARTIFACT_NOT_FOUND",
            )
        return path

    def files(self, artifact_id: str, omit_tensor_sha256: bool = False) -> list[artifact_v1.ArtifactFile]:
        """The artifact's files with size and SHA-256; `omit_tensor_sha256` leaves out the SHA-256 of *.safetensors."""
        folder = self.folder(artifact_id)
        return [
            artifact_v1.ArtifactFile(
                path=str(path.relative_to(folder)),
                size_bytes=path.stat().st_size,
                sha256="" if omit_tensor_sha256 and path.suffix == ".safetensors" else self._digest(path),
            )
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]

    def _digest(self, path: Path) -> str:
        """The digest of a file. It is cached until the file changes, because many replicas fetch the same files."""
        stat = path.stat()
        key = (path, stat.st_size, stat.st_mtime_ns)
        if key not in self._digests:
            self._digests[key] = file_digest(path)
        return self._digests[key]

    def read(self, artifact_id: str, path: str, offset: int) -> bytes:
        """At most CHUNK_BYTES of a file from `offset`; empty at its end. NotFound, FILE_NOT_FOUND."""
        file = inside(self.folder(artifact_id), path)
        if not file.is_file():
            raise NotFound(f"artifact {artifact_id} has no file {path}", reason="FILE_NOT_FOUND")
        with file.open("rb") as raw:
            raw.seek(offset)
            return raw.read(CHUNK_BYTES)
