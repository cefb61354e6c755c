"""A training apart from its tensors: its fixed properties, and the history of its versions."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict

from accord import atomic
from accord.errors import AlreadyExists, DataLoss
from accord.trainer import v1 as trainer_v1
from accord_trainer.algorithm import Kind
from accord_trainer.trainings.verification import TrainingIdentity


@dataclass(frozen=True)
class Manifest:
    """Fixed when a training is created, and written once."""

    # As requested, without output-only fields.
    training: trainer_v1.Training
    compute_dtype: str
    compute_threads: int
    tokenizer_fingerprint: str
    vocabulary_size: int
    learns_from: Kind
    # Of version 0 in its published form.
    digest: str

    def write(self, path: Path) -> None:
        """Writes the file durably and atomically."""
        content = {**self.__dict__, "training": MessageToDict(self.training, preserving_proto_field_name=True)}
        atomic.write_bytes(path, json.dumps(content, indent=1, sort_keys=True).encode())

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """DataLoss if the file is damaged."""
        try:
            content: dict[str, Any] = json.loads(path.read_text())
            return cls(**{**content, "training": ParseDict(content["training"], trainer_v1.Training())})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataLoss(f"{path} cannot be read: {error}; delete its folder", reason="TRAINING_DAMAGED") from error


@dataclass(frozen=True)
class TrainingHistory:
    """The versions of a training up to `version`. Part of each checkpoint, so it is never ahead of the weights."""

    version: int
    digest: str
    # version -> digest, for all versions.
    digests: dict[int, str] = field(default_factory=dict)
    # request_id -> the result of its step.
    results: dict[str, trainer_v1.StepResult] = field(default_factory=dict)

    def after(self, result: trainer_v1.StepResult) -> TrainingHistory:
        """The history with one more step."""
        return TrainingHistory(
            result.version,
            result.digest,
            {**self.digests, result.version: result.digest},
            {**self.results, result.request_id: result},
        )

    def to_json(self) -> dict[str, Any]:
        """The inverse of `from_json`."""
        return {
            "version": self.version,
            "digest": self.digest,
            "history": {str(version): digest for version, digest in self.digests.items()},
            "results": [MessageToDict(result, preserving_proto_field_name=True) for result in self.results.values()],
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> TrainingHistory:
        """The history in a checkpoint."""
        results = [ParseDict(result, trainer_v1.StepResult()) for result in content["results"]]
        return cls(
            content["version"],
            content["digest"],
            {int(version): digest for version, digest in content["history"].items()},
            {result.request_id: result for result in results},
        )

    def kept_result(self, request: trainer_v1.StepRequest) -> trainer_v1.StepResult | None:
        """The result of this step if it exists. AlreadyExists if the request_id was used for a different step."""
        kept = self.results.get(request.request_id)
        if kept is None:
            return None
        same = (
            kept.batch_id == request.batch_id
            and kept.version == request.parent_version + 1
            and kept.HasField("weights") == request.publish
        )
        if not same:
            raise AlreadyExists(
                f"request_id {request.request_id} was used for a different step; use a new one",
                reason="REQUEST_ID_REUSED",
            )
        return kept


def identity(manifest: Manifest, history: TrainingHistory) -> TrainingIdentity:
    """The properties that experience must match."""
    return TrainingIdentity(
        learns_from=manifest.learns_from,
        vocabulary_size=manifest.vocabulary_size,
        tokenizer_fingerprint=manifest.tokenizer_fingerprint,
        digests=history.digests,
        init=manifest.training.init,
    )
