"""One training in memory: steps that happen wholly or not at all. Runs on the worker thread; knows nothing of gRPC."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch

from accord import plugins
from accord.errors import FailedPrecondition, Internal
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_models.tokenizer import fingerprint
from accord_trainer.algorithm import Algorithm, Experience, Start, StepContext
from accord_trainer.distributed.executor import Command, Executor, batch_message
from accord_trainer.model.flops import Speed
from accord_trainer.model.memory_budget import require_room
from accord_trainer.options import parse_options
from accord_trainer.trainings.checkpoints import CheckpointStore
from accord_trainer.trainings.history import Manifest, TrainingHistory, facts
from accord_trainer.trainings.publisher import Publisher
from accord_trainer.trainings.rollback import Rollback
from accord_trainer.trainings.verification import staleness, verify_current
from accord_trainer.trainings.weights_digest import published_digest

log = logging.getLogger(__name__)
GROUP = "accord.algorithms"
CHECKPOINT_EVERY = 5


def build_algorithm(training: trainer_v1.Training, start: Start) -> Algorithm:
    """The algorithm that a training names, its models loaded."""
    kind = plugins.load(GROUP, training.algorithm, field="training.algorithm")
    algorithm: Algorithm = kind(start, parse_options(training.options, kind.options_type))
    return algorithm


def new_manifest(
    training: trainer_v1.Training, algorithm: Algorithm, *, compute_dtype: str, compute_threads: int
) -> Manifest:
    """What is fixed from now on."""
    return Manifest(
        training=training,
        compute_dtype=compute_dtype,
        compute_threads=compute_threads,
        tokenizer_fingerprint=fingerprint(algorithm.tokenizer),
        vocabulary_size=algorithm.vocabulary_size,
        learns_from=algorithm.learns_from,
        digest=published_digest(algorithm.merged(), algorithm.publish_dtype),
    )


class LoadedTraining:
    """An algorithm with its record, generator, checkpoints and publisher."""

    def __init__(
        self,
        manifest: Manifest,
        record: TrainingHistory,
        algorithm: Algorithm,
        checkpoints: CheckpointStore,
        publisher: Publisher,
        check_stopped: Callable[[], None],
        team: Executor,
        free_bytes: Callable[[], int],
        speed: Speed,
        undo: Rollback,
    ) -> None:
        """`free_bytes` gives the memory that a step may take now; `speed` is that of all ranks' devices."""
        self.manifest = manifest
        self.record = record
        self.algorithm = algorithm
        self.checkpoints = checkpoints
        self.publisher = publisher
        self.checkpoint_version = 0
        # Set when it leaves the memory: whoever still holds it must ask for it again.
        self.retired = False
        self._check_stopped = check_stopped
        self._team = team
        self._free_bytes = free_bytes
        self._speed = speed
        self._undo = undo
        self._id = manifest.training.training_id
        self.generator = torch.Generator().manual_seed(manifest.training.seed % 2**63)

    def restore(self, version: int) -> None:
        """Puts the weights, optimizer and generator of a checkpoint in place; DataLoss where it is damaged."""
        state, self.generator = self.checkpoints.read(version, self.algorithm.state())
        self.algorithm.load_state(state)
        self.checkpoint_version = version

    def step(self, request: trainer_v1.StepRequest, batch: Experience) -> trainer_v1.StepResult:
        """Trains, digests, publishes and checkpoints; on any error everything is as it was, and the error goes on."""
        self._require_learnable(request, batch)
        messages = (request.SerializeToString(), batch_message(batch))
        return self._team.together(
            Command("step", self._id, messages=messages),
            lambda: self._step(request, batch),
            lambda result: result.digest,
        )

    def _require_learnable(self, request: trainer_v1.StepRequest, batch: Experience) -> None:
        """Raises where the step cannot be made, before any rank has begun it."""
        parent = request.parent_version
        if parent != self.record.version:
            raise FailedPrecondition(
                f"{request.training_id} is at version {self.record.version}, not at {parent}: "
                "replay the steps after it, or go on from it",
                reason="WRONG_PARENT",
                metadata={"current": str(self.record.version), "parent": str(parent)},
            )
        most = self.manifest.training.max_staleness
        verify_current(batch.samples, facts(self.manifest, self.record), parent, most)
        self.algorithm.check(batch)
        require_room({**self.algorithm.step_bytes(batch), "copy": self._undo.bytes(self)}, self._free_bytes())
        if self._checkpoints_after(parent):
            self.checkpoints.require_space(self.algorithm.state())

    def _checkpoints_after(self, parent: int) -> bool:
        every = self.manifest.training.checkpoint_every or CHECKPOINT_EVERY
        return self._undo.every_version or (parent + 1) % every == 0

    def _step(self, request: trainer_v1.StepRequest, batch: Experience) -> trainer_v1.StepResult:
        torch.set_num_threads(self.manifest.compute_threads)
        checkpointed = self._checkpoints_after(request.parent_version)
        started = time.monotonic()
        put_back = self._undo.point(self)
        try:
            metrics = self._learn(batch)
            if batch.samples:
                found = staleness(batch.samples, facts(self.manifest, self.record), request.parent_version)
                metrics["staleness"], metrics["staleness_max"] = sum(found) / len(found), max(found)
            _refuse_odd(metrics)
            result = self._result(request, metrics, started)
            record = self.record.after(result)
            if checkpointed:
                result.checkpointed = True
                self.checkpoints.write(record.version, self.algorithm.state(), self.generator, record.to_json())
        except BaseException:
            put_back()
            raise
        self.record = record
        if checkpointed:
            self.checkpoint_version = record.version
        return result

    def _learn(self, batch: Experience) -> dict[str, float]:
        """The algorithm's figures, and what its passes cost."""
        before, began = self.algorithm.flops(), self._speed.now()
        metrics = dict(self.algorithm.step(batch, self._context()))
        metrics["flops"] = self.algorithm.flops() - before
        metrics["learning_seconds"] = max(self._speed.now() - began, 1e-9)
        if self._speed.peak_flops:
            metrics["mfu"] = metrics["flops"] / (self._speed.peak_flops * metrics["learning_seconds"])
        return metrics

    def evaluate(self, batch: Experience) -> dict[str, float]:
        """Metrics under the current weights."""
        self.algorithm.check(batch)
        order = Command("evaluate", self._id, messages=(batch_message(batch),))
        return self._team.together(order, lambda: self._evaluate(batch))

    def _evaluate(self, batch: Experience) -> dict[str, float]:
        torch.set_num_threads(self.manifest.compute_threads)
        metrics = self.algorithm.evaluate(batch, self._context())
        _refuse_odd(metrics)
        return metrics

    def publish(self, format: str, scheme: str) -> types_v1.WeightsRef:
        """Writes the current weights and names them."""

        def work() -> types_v1.WeightsRef:
            if format == "adapter":
                return self.publisher.publish_adapter(self._id, self.record.version, self.algorithm, scheme)
            return self._publish(self.record.version, self.record.digest, scheme)

        return self._team.together(Command("publish", self._id, {"format": format, "scheme": scheme}), work)

    def checkpoint(self) -> int:
        """Writes the current version unless it is on disk; gives the version."""
        return self._team.together(Command("checkpoint", self._id), self._checkpoint)

    def _checkpoint(self) -> int:
        if self.checkpoint_version != self.record.version:
            self.write_checkpoint()
        return self.checkpoint_version

    def write_checkpoint(self) -> None:
        """Writes the current version; all ranks call this together."""
        self.checkpoints.write(self.record.version, self.algorithm.state(), self.generator, self.record.to_json())
        self.checkpoint_version = self.record.version

    def retire(self) -> None:
        """Makes sure that nothing is lost when this object goes."""
        self._team.together(Command("retire", self._id), self._checkpoint)
        self.retired = True

    def _publish(self, version: int, digest: str, scheme: str) -> types_v1.WeightsRef:
        return self.publisher.publish(self._id, version, digest, self.algorithm, scheme)

    def _result(
        self, request: trainer_v1.StepRequest, metrics: dict[str, float], started: float
    ) -> trainer_v1.StepResult:
        version = request.parent_version + 1
        digest = published_digest(self.algorithm.merged(), self.algorithm.publish_dtype)
        result = trainer_v1.StepResult(
            training_id=request.training_id,
            request_id=request.request_id,
            batch_id=request.batch_id,
            version=version,
            digest=digest,
            metrics=metrics,
        )
        if request.publish:
            weights = self._publish(version, digest, "")
            figures = self.publisher.add_delta(weights, self._id, self.record.version, self.record.digest)
            result.weights.CopyFrom(weights)
            result.metrics.update(figures)
        result.seconds = time.monotonic() - started
        if "tokens" in metrics:
            result.metrics["tokens_per_second"] = metrics["tokens"] / max(result.seconds, 1e-9)
        log.info("%s: version %d in %.1f s", request.training_id, version, result.seconds)
        return result

    def _context(self) -> StepContext:
        return StepContext(self.record.version, self.generator, self._check_stopped)


def _refuse_odd(metrics: dict[str, float]) -> None:
    odd = [name for name, value in metrics.items() if not math.isfinite(value)]
    if odd:
        raise FailedPrecondition(
            f"the figures {', '.join(odd)} are not finite; the model is as it was before", reason="NOT_FINITE"
        )


def verify_restored(live: LoadedTraining, folder: Path) -> None:
    """Internal, RESTORE_MISMATCH, where the restored weights are not those that the record tells of."""
    digest = published_digest(live.algorithm.merged(), live.algorithm.publish_dtype)
    if digest != live.record.digest:
        raise Internal(
            f"the weights restored from {folder} have digest {digest[:12]}, recorded is {live.record.digest[:12]}",
            reason="RESTORE_MISMATCH",
        )
