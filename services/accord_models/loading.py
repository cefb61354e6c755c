"""Loads model folders: causal language models and reward models. Errors describe the problem of the folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from accord.errors import InvalidArgument

DType = Literal["float32", "bfloat16"]
# The head reads the state of the last token, or the mean state of the response's tokens.
Pooling = Literal["last", "mean"]
# Keys that may differ between two configs of the same architecture.
_NOT_ARCHITECTURE = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")
TORCH_DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}

# The library's progress bars and load reports would drown the services' own log lines.
transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def torch_dtype(name: str) -> torch.dtype:
    """The torch type of `float32` or `bfloat16`; InvalidArgument/UNKNOWN_DTYPE for any other name."""
    if name not in TORCH_DTYPES:
        raise InvalidArgument(f"dtype {name!r} is unknown; known: {', '.join(TORCH_DTYPES)}", reason="UNKNOWN_DTYPE")
    return TORCH_DTYPES[name]


def load_causal_lm(folder: Path, dtype: DType | str = "float32") -> PreTrainedModel:
    """The causal language model in `folder` (config.json, *.safetensors), in eval mode, every dropout 0.

    InvalidArgument/BAD_MODEL if the folder is missing or incomplete, or lacks weights that the model needs.
    """
    config = load_config(folder)
    model, info = _load(AutoModelForCausalLM, folder, config, dtype)
    _refuse_missing(folder, info)
    return _quiet(model)


def load_reward_model(folder: Path, dtype: DType | str = "float32", *, members: bool = False) -> PreTrainedModel:
    """The reward model in `folder`: a sequence classifier with one output, eval mode, every dropout 0.

    An ensemble (M outputs, `accord_ensemble: M` in its config) keeps its heads with `members`. Without, their mean
    becomes one head, which is exact because the heads are linear.
    InvalidArgument/BAD_MODEL as for `load_causal_lm`, and if the folder has no trained head, or a number of outputs
    that is neither one nor an ensemble's.
    """
    config = load_config(folder)
    if config.num_labels != ensemble_size(config):
        raise _bad(folder, f"has {config.num_labels} labels; a reward model has one (num_labels=1)")
    model, info = _load(AutoModelForSequenceClassification, folder, config, dtype)
    _refuse_missing(folder, info)
    if not members and config.num_labels > 1:
        _average_heads(model)
    return _quiet(model)


def ensemble_size(config: Any) -> int:
    """The number of reward models that share the trunk: `accord_ensemble` of the config; 1 for a plain reward model."""
    return int(getattr(config, "accord_ensemble", None) or 1)


def pooling_of(config: Any) -> Pooling:
    """The states that a reward model's head reads: `accord_pooling` of the config; `last` for a plain classifier."""
    return "mean" if getattr(config, "accord_pooling", None) == "mean" else "last"


def new_reward_model(
    folder: Path,
    seed: int,
    dtype: DType | str = "float32",
    *,
    ensemble: int = 1,
    pooling: Pooling = "last",
    blocks: int = 0,
) -> PreTrainedModel:
    """A reward model on the trunk of the causal LM or encoder in `folder`, with a fresh head, or `ensemble` of them.

    Only the lowest `blocks` of the trunk are kept (0: all), with the final norm above them.

    Head weights are sampled from N(0, 1/sqrt(d+1)), where d is the input width; the bias is 0 (Stiennon et al. 2020, as
    described in Huang et al. 2024, "The N+ implementation details"). The same seed gives the same head.
    InvalidArgument/BAD_MODEL.
    """
    config = load_config(folder)
    config.num_labels = ensemble
    if pooling == "mean":
        config.accord_pooling = pooling
    if blocks:
        _keep_blocks(folder, config, blocks)
    if ensemble > 1:
        config.accord_ensemble = ensemble
    if getattr(config, "pad_token_id", None) is None:
        from accord_models.tokenizer import load_tokenizer

        config.pad_token_id = load_tokenizer(folder).pad_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, info = _load(AutoModelForSequenceClassification, folder, config, dtype, ignore_mismatched_sizes=True)
        head = reward_head(model)
        _refuse_missing(folder, info, outside=model.base_model)
        with torch.no_grad():
            head.weight.normal_(0.0, 1.0 / math.sqrt(head.in_features + 1))
            if head.bias is not None:
                head.bias.zero_()
    return _quiet(model)


def _keep_blocks(folder: Path, config: Any, blocks: int) -> None:
    if blocks > config.num_hidden_layers:
        raise _bad(folder, f"has {config.num_hidden_layers} transformer blocks; {blocks} of them cannot be kept")
    config.num_hidden_layers = blocks
    # Some configs list the type of each block.
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:blocks]


def reward_head(model: PreTrainedModel) -> nn.Linear:
    """The linear layer of a reward model that computes the score: the last one with one output (an ensemble: M)."""
    outputs = model.config.num_labels
    heads = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == outputs]
    if not heads:
        raise InvalidArgument(f"{type(model).__name__} has no linear layer with {outputs} outputs", reason="BAD_MODEL")
    return heads[-1]


@torch.no_grad()
def _average_heads(model: PreTrainedModel) -> None:
    head = reward_head(model)
    head.weight = nn.Parameter(head.weight.float().mean(0, keepdim=True).to(head.weight.dtype))
    if head.bias is not None:
        head.bias = nn.Parameter(head.bias.float().mean(0, keepdim=True).to(head.bias.dtype))
    head.out_features = 1
    model.config.num_labels = 1
    model.config.accord_ensemble = 1
    model.num_labels = 1  # type: ignore[assignment]  # heads of some encoders reshape by it


def load_config(folder: Path) -> Any:
    """The Hugging Face config of `folder`, dropouts set to 0; InvalidArgument/BAD_MODEL."""
    folder = Path(folder)
    if not folder.is_dir():
        raise _bad(folder, "does not exist or is not a folder; pass a folder with config.json and *.safetensors")
    if not (folder / "config.json").is_file():
        raise _bad(folder, "has no config.json; pass a folder in Hugging Face layout")
    if not any(folder.glob("*.safetensors")):
        raise _bad(folder, "has no *.safetensors; weights in other formats (pickle) are not loaded")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (ValueError, OSError, KeyError, AttributeError, TypeError) as error:
        raise _bad(folder, f"has a config.json that transformers cannot read: {error}") from error
    for name, value in config.to_dict().items():
        if name.endswith(("dropout", "pdrop", "_dropout_prob")) and isinstance(value, float | int) and value:
            setattr(config, name, 0.0)
    return config


def same_architecture(left: Any, right: Any) -> bool:
    """Whether two Hugging Face configs describe the same modules."""
    return _architecture(left) == _architecture(right)


def stop_tokens(folder: Path, config: Any, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Ids that end a response: of generation_config.json, or of the config, or of the tokenizer."""
    named: Any = None
    if (folder / "generation_config.json").is_file():
        named = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id
    for other in (getattr(config, "eos_token_id", None), tokenizer.eos_token_id):
        named = other if named is None else named
    ids = named if isinstance(named, list) else [] if named is None else [named]
    return tuple(sorted(set(ids)))


def _architecture(config: Any) -> dict[str, Any]:
    return {name: value for name, value in config.to_dict().items() if name not in _NOT_ARCHITECTURE}


def _load(auto: Any, folder: Path, config: Any, dtype: str, **options: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    target = torch_dtype(dtype)
    try:
        model, info = auto.from_pretrained(
            folder,
            config=config,
            dtype=target,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # transformers and safetensors raise many types, SafetensorError among them
        raise _bad(folder, f"cannot be loaded: {type(error).__name__}: {error}") from error
    return model, info


def _refuse_missing(folder: Path, info: dict[str, Any], outside: nn.Module | None = None) -> None:
    """Refuses a model that would keep some random weights; `outside` limits the check to that module."""
    missing = sorted(info["missing_keys"])
    if outside is not None:
        trunk = {name for name, _ in outside.named_parameters()}
        missing = [name for name in missing if name.partition(".")[2] in trunk and "pooler" not in name]
    if missing:
        raise _bad(folder, f"lacks {len(missing)} of the model's weights: {', '.join(missing[:3])}")


def _quiet(model: PreTrainedModel) -> PreTrainedModel:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.train(False)
    return model


def _bad(folder: Path, what: str) -> InvalidArgument:
    return InvalidArgument(f"model folder {folder} {what}", reason="BAD_MODEL", metadata={"folder": str(folder)})
