"""One training in memory: each step happens completely or not at all. Runs on the compute thread; independent of
gRPC."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from accord import plugins
from accord.errors import FailedPrecondition, Internal
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_models.tokenizer import fingerprint
from accord_trainer.algorithm import Algorithm, Experience, Start, StepContext, parse_options
from accord_trainer.distributed.executor import Command, Executor
from accord_trainer.trainings.batches import batch_message
from accord_trainer.trainings.checkpoints import CheckpointStore
from accord_trainer.trainings.device_speed import Speed
from accord_trainer.trainings.history import Manifest, TrainingHistory, identity
from accord_trainer.trainings.memory_budget import require_room
from accord_trainer.trainings.publisher import Publisher
from accord_trainer.trainings.verification import staleness, verify_current
from accord_trainer.trainings.weights_digest import published_digest

log = logging.getLogger(__name__)
GROUP = "accord.algorithms"
CHECKPOINT_EVERY = 5
RollbackPlace = Literal["memory", "disk"]


def build_algorithm(training: trainer_v1.Training, start: Start) -> Algorithm:
    """The algorithm that a training names, with its models loaded."""
    kind = plugins.load(GROUP, training.algorithm, field="training.algorithm")
    algorithm: Algorithm = kind(start, parse_options(training.options, kind.options_type))
    return algorithm


def new_manifest(
    training: trainer_v1.Training, algorithm: Algorithm, *, compute_dtype: str, compute_threads: int
) -> Manifest:
    """The properties of a new training that never change."""
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
    """An algorithm with its history, generator, checkpoints and publisher."""

    def __init__(
        self,
        manifest: Manifest,
        history: TrainingHistory,
        algorithm: Algorithm,
        checkpoints: CheckpointStore,
        publisher: Publisher,
        check_stopped: Callable[[], None],
        executor: Executor,
        free_bytes: Callable[[], int],
        speed: Speed,
        rollback: Rollback,
    ) -> None:
        """`free_bytes` returns the memory that a step may take now; `speed` covers the devices of all ranks."""
        self.manifest = manifest
        self.history = history
        self.algorithm = algorithm
        self.checkpoints = checkpoints
        self.publisher = publisher
        self.checkpoint_version = 0
        # Set when it is unloaded: a caller that still has a reference must load it again.
        self.unloaded = False
        self._check_stopped = check_stopped
        self._executor = executor
        self._free_bytes = free_bytes
        self._speed = speed
        self._rollback = rollback
        self._id = manifest.training.training_id
        self.generator = torch.Generator().manual_seed(manifest.training.seed % 2**63)

    def restore(self, version: int) -> None:
        """Loads weights, optimizer and generator from a checkpoint; DataLoss if it is damaged."""
        state, self.generator = self.checkpoints.read(version, self.algorithm.state())
        self.algorithm.load_state(state)
        self.checkpoint_version = version

    def step(self, request: trainer_v1.StepRequest, batch: Experience) -> trainer_v1.StepResult:
        """Trains, digests, publishes and checkpoints. On any error it restores the state before the step, then raises
        it."""
        self._require_learnable(request, batch)
        messages = (request.SerializeToString(), batch_message(batch))
        return self._executor.run(
            Command("step", self._id, messages=messages),
            lambda: self._step(request, batch),
            lambda result: result.digest,
        )

    def _require_learnable(self, request: trainer_v1.StepRequest, batch: Experience) -> None:
        """Raises before any rank begins a step that cannot be made."""
        parent = request.parent_version
        if parent != self.history.version:
            raise FailedPrecondition(
                f"training {request.training_id} is at version {self.history.version}, not {parent}; "
                "replay the missing steps, or continue from its version",
                reason="WRONG_PARENT",
                metadata={"current": str(self.history.version), "parent": str(parent)},
            )
        max_staleness = self.manifest.training.max_staleness
        verify_current(batch.samples, identity(self.manifest, self.history), parent, max_staleness)
        self.algorithm.check(batch)
        require_room({**self.algorithm.step_bytes(batch), "copy": self._rollback.bytes(self)}, self._free_bytes())
        if self._checkpoints_after(parent):
            self.checkpoints.require_space(self.algorithm.state())

    def _checkpoints_after(self, parent: int) -> bool:
        every = self.manifest.training.checkpoint_every or CHECKPOINT_EVERY
        return self._rollback.every_version or (parent + 1) % every == 0

    def _step(self, request: trainer_v1.StepRequest, batch: Experience) -> trainer_v1.StepResult:
        torch.set_num_threads(self.manifest.compute_threads)
        checkpointed = self._checkpoints_after(request.parent_version)
        started = time.monotonic()
        restore = self._rollback.prepare(self)
        try:
            metrics = self._learn(batch)
            if batch.samples:
                ages = staleness(batch.samples, identity(self.manifest, self.history), request.parent_version)
                metrics["staleness"], metrics["staleness_max"] = sum(ages) / len(ages), max(ages)
            _require_finite(metrics)
            result = self._result(request, metrics, started)
            history = self.history.after(result)
            if checkpointed:
                result.checkpointed = True
                self.checkpoints.write(history.version, self.algorithm.state(), self.generator, history.to_json())
        except BaseException:
            restore()
            raise
        self.history = history
        if checkpointed:
            self.checkpoint_version = history.version
        return result

    def _learn(self, batch: Experience) -> dict[str, float]:
        """The algorithm's metrics, and the cost of its passes."""
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
        command = Command("evaluate", self._id, messages=(batch_message(batch),))
        return self._executor.run(command, lambda: self._evaluate(batch))

    def _evaluate(self, batch: Experience) -> dict[str, float]:
        torch.set_num_threads(self.manifest.compute_threads)
        metrics = self.algorithm.evaluate(batch, self._context())
        _require_finite(metrics)
        return metrics

    def publish(self, format: str, scheme: str) -> types_v1.WeightsRef:
        """Publishes the current weights and returns their reference."""

        def work() -> types_v1.WeightsRef:
            if format == "adapter":
                return self.publisher.publish_adapter(self._id, self.history.version, self.algorithm, scheme)
            return self._publish(self.history.version, self.history.digest, scheme)

        return self._executor.run(Command("publish", self._id, {"format": format, "scheme": scheme}), work)

    def checkpoint(self) -> int:
        """Checkpoints the current version unless it is on disk; returns the version."""
        return self._executor.run(Command("checkpoint", self._id), self._checkpoint)

    def _checkpoint(self) -> int:
        if self.checkpoint_version != self.history.version:
            self.write_checkpoint()
        return self.checkpoint_version

    def write_checkpoint(self) -> None:
        """Writes the current version; all ranks call this together."""
        self.checkpoints.write(self.history.version, self.algorithm.state(), self.generator, self.history.to_json())
        self.checkpoint_version = self.history.version

    def unload(self) -> None:
        """Checkpoints the current version, so that this object can be discarded."""
        self._executor.run(Command("unload", self._id), self._checkpoint)
        self.unloaded = True

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
            figures = self.publisher.add_delta(weights, self._id, self.history.version, self.history.digest)
            result.weights.CopyFrom(weights)
            result.metrics.update(figures)
        result.seconds = time.monotonic() - started
        if "tokens" in metrics:
            result.metrics["tokens_per_second"] = metrics["tokens"] / max(result.seconds, 1e-9)
        log.info("%s: version %d in %.1f s", request.training_id, version, result.seconds)
        return result

    def _context(self) -> StepContext:
        return StepContext(self.history.version, self.generator, self._check_stopped)


class Rollback:
    """The rollback of a training to its state before a failed step. `memory`: a copy of weights and optimizer is held
    during the step; fast, and half of what full fine-tuning takes in addition to the passes. `disk`: no copy; every
    version is checkpointed, and read back if needed."""

    def __init__(self, place: RollbackPlace) -> None:
        self.every_version = place == "disk"

    def bytes(self, training: LoadedTraining) -> int:
        """The bytes that `prepare` will allocate."""
        return 0 if self.every_version else training.algorithm.state().copy_bytes()

    def prepare(self, training: LoadedTraining) -> Callable[[], None]:
        """The function that restores the current state. With `disk` all ranks write the checkpoint together."""
        if self.every_version:
            version = training.history.version
            if version not in training.checkpoints.versions():
                training.write_checkpoint()
            return lambda: training.restore(version)
        state, generator_state = training.algorithm.state().clone(), training.generator.get_state()

        def restore() -> None:
            training.algorithm.load_state(state)
            training.generator.set_state(generator_state)

        return restore


def _require_finite(metrics: dict[str, float]) -> None:
    odd = [name for name, value in metrics.items() if not math.isfinite(value)]
    if odd:
        raise FailedPrecondition(
            f"metrics are not finite: {', '.join(odd)}; the model is unchanged", reason="NOT_FINITE"
        )


def verify_restored(training: LoadedTraining, folder: Path) -> None:
    """Internal, RESTORE_MISMATCH, if the restored weights do not have the digest in the history."""
    digest = published_digest(training.algorithm.merged(), training.algorithm.publish_dtype)
    if digest != training.history.digest:
        raise Internal(
            f"the weights restored from {folder} have digest {digest[:12]}, expected {training.history.digest[:12]}",
            reason="RESTORE_MISMATCH",
        )
