"""AdamW with named parameters, warm-up, clipping per group, and a state of tensors (never pickled)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

from accord.errors import FailedPrecondition
from accord_trainer.algorithm import AlgorithmOptions
from accord_trainer.distributed.world import Alone, World


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate and a clipped gradient norm."""

    learning_rate: float
    parameters: Mapping[str, Parameter]


class Optimizer:
    """Loshchilov and Hutter 2019, arXiv 1711.05101. `updates` counts the updates made."""

    def __init__(self, groups: Mapping[str, Group], options: AlgorithmOptions, world: World | None = None) -> None:
        self._options = options
        self._world = world or Alone()
        self._groups = {
            name: Group(group.learning_rate, {key: p for key, p in group.parameters.items() if p.requires_grad})
            for name, group in groups.items()
        }
        self._parameters = {key: p for group in self._groups.values() for key, p in group.parameters.items()}
        self._adam = torch.optim.AdamW(
            [{"params": list(g.parameters.values()), "lr": g.learning_rate} for g in self._groups.values()],
            eps=options.adam_epsilon,
            weight_decay=options.weight_decay,
            fused=True,
        )
        self.updates = 0

    def rate_factor(self) -> float:
        """The factor of the next update's learning rates."""
        factor = 1.0
        if self._options.warmup_updates:
            factor = min(1.0, (self.updates + 1) / self._options.warmup_updates)
        if self._options.decay_updates:
            factor *= max(0.0, 1.0 - self.updates / self._options.decay_updates)
        return factor

    def update(self) -> dict[str, float]:
        """Clips, checks and applies the gradients, then clears them. Returns the gradient norm of each group before
        clipping.

        FailedPrecondition, NOT_FINITE, if a gradient is NaN or infinite; then nothing is applied.
        """
        norms: dict[str, float] = {}
        self._world.add_gradients(self._parameters.values())
        for name, group in self._groups.items():
            given = [p for p in group.parameters.values() if p.grad is not None]
            norms[name] = _clip(given, self._options.max_grad_norm) if given else 0.0
            if norms[name] != norms[name] or norms[name] == float("inf"):
                raise not_finite(f"the gradient of the {name} parameters")
        factor = self.rate_factor()
        for setting, group in zip(self._adam.param_groups, self._groups.values(), strict=True):
            setting["lr"] = group.learning_rate * factor
        self._adam.step()
        self.clear()
        self.updates += 1
        return norms

    def clear(self) -> None:
        """Drops gradients, including partial ones of a failed step."""
        self._adam.zero_grad(set_to_none=True)

    def weights(self) -> dict[str, Tensor]:
        """The trained parameters by name, live."""
        return {name: parameter.detach() for name, parameter in self._parameters.items()}

    def tensors(self) -> dict[str, Tensor]:
        """The moments and step counts by `<parameter>/<entry>`, live; empty before the first update."""
        return {
            f"{name}/{entry}": tensor
            for name, parameter in self._parameters.items()
            for entry, tensor in self._adam.state.get(parameter, {}).items()
        }

    def load(self, weights: Mapping[str, Tensor], tensors: Mapping[str, Tensor], updates: int) -> None:
        """Copies weights, moments and count into the optimizer."""
        if set(weights) != set(self._parameters):
            odd = ", ".join(sorted(set(weights) ^ set(self._parameters))[:3])
            raise FailedPrecondition(f"the saved state belongs to a different model: {odd}", reason="STATE_MISMATCH")
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(weights[name])
        self.clear()
        self._adam.state.clear()
        for key, tensor in tensors.items():
            name, _, entry = key.rpartition("/")
            self._adam.state[self._parameters[name]][entry] = tensor.detach().clone()
        self.updates = updates


def _clip(parameters: list[Parameter], most: float) -> float:
    """Clips the gradients of all ranks together to the norm `most`; returns the norm before."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    torch.nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return float(norm)


def not_finite(what: str) -> FailedPrecondition:
    """The error for NaN or infinity in training; the step is rolled back."""
    return FailedPrecondition(
        f"{what} is not finite; the step was rolled back. Lower the learning rate, or check the batch",
        reason="NOT_FINITE",
    )
