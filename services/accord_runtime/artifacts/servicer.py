"""accord.artifact.v1.ArtifactService over an ArtifactStore."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from accord.artifact import v1 as artifact_v1
from accord_runtime.artifacts.store import ArtifactStore


class ArtifactServicer(artifact_v1.ArtifactServiceServicer):
    """Adapts the store to the contract."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store

    async def GetArtifact(
        self, request: artifact_v1.GetArtifactRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> artifact_v1.GetArtifactResponse:
        files = await asyncio.to_thread(self._store.files, request.artifact_id, request.omit_tensor_sha256)
        return artifact_v1.GetArtifactResponse(files=files)

    async def ReadFile(
        self, request: artifact_v1.ReadFileRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[artifact_v1.ReadFileResponse]:
        offset = request.offset
        while data := await asyncio.to_thread(self._store.read, request.artifact_id, request.path, offset):
            yield artifact_v1.ReadFileResponse(data=data)
            offset += len(data)
