"""Full fine-tuning or LoRA (Hu et al. 2021, arXiv 2106.09685) on the same module, and the merged model to publish."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from accord.errors import FailedPrecondition, InvalidArgument
from accord_trainer.model.trunk import Trunk
from accord_trainer.options import AlgorithmOptions

if TYPE_CHECKING:
    from peft import PeftModel


class Adaptable:
    """A model that is trained: as a whole, its upper blocks, or through adapters.

    `model` is the plain model (adapters, where there are any, sit inside its layers); `trunk` its body.
    """

    def __init__(
        self, model: PreTrainedModel, options: AlgorithmOptions, *, task: Literal["CAUSAL_LM"] | None, seed: int
    ) -> None:
        self.model = model
        self.peft: PeftModel | None = None
        self.trunk = Trunk(model.base_model, trainable_layers=options.trainable_layers)
        if options.lora_rank:
            self.peft = _with_lora(model, options, task, seed, self.trunk)
        elif self.trunk.frozen:
            self.trunk.freeze()

    def merged(self) -> PreTrainedModel:
        """The plain model, adapters merged in float32 into a copy; without adapters the live model itself."""
        if self.peft is None:
            return self.model
        # Merging in place and taking it out again would leave rounding behind in the base weights.
        copied: Any = copy.deepcopy(self.peft)
        merged: PreTrainedModel = copied.merge_and_unload()
        return merged

    def save_adapter(self, folder: Path) -> None:
        """Writes the adapter as PEFT does (safetensors); FailedPrecondition with full fine-tuning."""
        if self.peft is None:
            raise FailedPrecondition(
                "this training has no adapter: it fine-tunes the model itself (lora_rank 0); publish it merged",
                reason="NO_ADAPTER",
            )
        self.peft.save_pretrained(str(folder), safe_serialization=True)


def _with_lora(
    model: PreTrainedModel, options: AlgorithmOptions, task: str | None, seed: int, trunk: Trunk
) -> PeftModel:
    from peft import LoraConfig, get_peft_model  # takes seconds, and most trainings have no adapter

    layers = list(range(trunk.frozen, len(trunk.blocks))) if trunk.frozen else None
    config = LoraConfig(
        r=options.lora_rank,
        lora_alpha=options.lora_alpha,  # type: ignore[arg-type]  # a float serves as well
        lora_dropout=0.0,
        target_modules=list(options.lora_targets) or _block_linears(trunk),
        layers_to_transform=layers,
        task_type=task,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            adapted = get_peft_model(model, config)
        except ValueError as error:
            raise InvalidArgument.at("training.options.lora_targets", str(error)) from error
    adapted.train(False)
    return adapted


def _block_linears(trunk: Trunk) -> list[str]:
    """The names of the linear layers inside a block: what gets an adapter unless told otherwise."""
    return sorted({name for name, part in trunk.blocks[0].named_modules() if isinstance(part, nn.Linear)})
