"""What is known of a training besides its tensors: what it was made from, and its history."""

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
from accord_trainer.trainings.verification import Facts


@dataclass(frozen=True)
class Manifest:
    """Fixed when a training is created, and written once."""

    # As requested, output-only fields left out.
    training: trainer_v1.Training
    compute_dtype: str
    compute_threads: int
    tokenizer_fingerprint: str
    vocabulary_size: int
    learns_from: Kind
    # Of version 0, as it would be published.
    digest: str

    def write(self, path: Path) -> None:
        """Durably, in one step."""
        content = {**self.__dict__, "training": MessageToDict(self.training, preserving_proto_field_name=True)}
        atomic.write_bytes(path, json.dumps(content, indent=1, sort_keys=True).encode())

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """DataLoss where the file is damaged."""
        try:
            content: dict[str, Any] = json.loads(path.read_text())
            return cls(**{**content, "training": ParseDict(content["training"], trainer_v1.Training())})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataLoss(f"{path} cannot be read: {error}; delete its folder", reason="TRAINING_DAMAGED") from error


@dataclass(frozen=True)
class TrainingHistory:
    """The history of a training up to `version`. Goes into each checkpoint, so it never says more than the weights."""

    version: int
    digest: str
    # version -> digest of every version made.
    history: dict[int, str] = field(default_factory=dict)
    # request_id -> the result of its step.
    results: dict[str, trainer_v1.StepResult] = field(default_factory=dict)

    def after(self, result: trainer_v1.StepResult) -> TrainingHistory:
        """The record with one step more."""
        return TrainingHistory(
            result.version,
            result.digest,
            {**self.history, result.version: result.digest},
            {**self.results, result.request_id: result},
        )

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {
            "version": self.version,
            "digest": self.digest,
            "history": {str(version): digest for version, digest in self.history.items()},
            "results": [MessageToDict(result, preserving_proto_field_name=True) for result in self.results.values()],
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> TrainingHistory:
        """The record of a checkpoint."""
        results = [ParseDict(result, trainer_v1.StepResult()) for result in content["results"]]
        return cls(
            content["version"],
            content["digest"],
            {int(version): digest for version, digest in content["history"].items()},
            {result.request_id: result for result in results},
        )

    def kept_result(self, request: trainer_v1.StepRequest) -> trainer_v1.StepResult | None:
        """The result of this very step, if it was made. AlreadyExists where the request_id was used for another."""
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
                f"request_id {request.request_id} was used for another step; use a new one", reason="REQUEST_ID_REUSED"
            )
        return kept


def facts(manifest: Manifest, record: TrainingHistory) -> Facts:
    """What experience is verified against."""
    return Facts(
        learns_from=manifest.learns_from,
        vocabulary_size=manifest.vocabulary_size,
        tokenizer_fingerprint=manifest.tokenizer_fingerprint,
        history=record.history,
        init=manifest.training.init,
    )
