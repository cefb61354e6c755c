"""What puts a training back as it was before a step that failed: a copy in memory, or its checkpoint on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from accord_trainer.model.memory_budget import copy_bytes

if TYPE_CHECKING:
    from accord_trainer.trainings.training import LoadedTraining

Place = Literal["memory", "disk"]


class Rollback:
    """`memory`: a copy of weights and optimizer is held while a step is made; fast, and half of what full fine-tuning
    takes besides the passes. `disk`: nothing is copied; every version is checkpointed, and read again if need be."""

    def __init__(self, place: Place) -> None:
        self.every_version = place == "disk"

    def bytes(self, live: LoadedTraining) -> int:
        """Memory that `point` will take."""
        return 0 if self.every_version else copy_bytes(live.algorithm.state())

    def point(self, live: LoadedTraining) -> Callable[[], None]:
        """What puts everything back as it is now. On the disk all ranks write together."""
        if self.every_version:
            version = live.record.version
            if version not in live.checkpoints.versions():
                live.write_checkpoint()
            return lambda: live.restore(version)
        state, generator_state = live.algorithm.state().clone(), live.generator.get_state()

        def put_back() -> None:
            live.algorithm.load_state(state)
            live.generator.set_state(generator_state)

        return put_back
