"""The share of a device's peak speed that a PPO step uses: MFU of a model with random weights.

    python benchmarks/trainer_mfu.py [--shape 0.5b] [--steps 3] [--json FILE]
    torchrun --standalone --nproc-per-node 1 benchmarks/trainer_mfu.py --parallel fsdp

On a GPU a 0.5B shape (that of Qwen2.5-0.5B, tied embeddings) computes in bfloat16 with torch's own attention kernels;
without one a tiny shape shows that it runs, and --peak-tflops gives MFU a meaning. Nothing is downloaded: weights are
random, prompts and answers are random tokens, which cost as much as real ones. Operations are counted as
services/accord_trainer/model/trunk.py defines: pads and recomputation do not count. The warm-up step is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_models.precision import fastest_dtype
from accord_trainer.algorithm import Experience, Start, StepContext
from accord_trainer.algorithms.ppo import PPO, PpoOptions
from accord_trainer.distributed.process_group import ProcessGroup, local_device, started_by_torchrun
from accord_trainer.distributed.world import Alone, World
from accord_trainer.trainings.device_speed import Speed, peak_flops

# hidden, intermediate, blocks, heads, key-value heads, vocabulary
SHAPES = {
    "tiny": (64, 172, 2, 4, 2, 512),
    "135m": (576, 1536, 30, 9, 3, 49152),
    "0.5b": (896, 4864, 24, 14, 2, 151936),
    "1.5b": (1536, 8960, 28, 12, 2, 151936),
}


def main() -> None:
    arguments = parse()
    device = local_device("auto")
    world: World = Alone()
    if started_by_torchrun():
        world = ProcessGroup(sharded=arguments.parallel == "fsdp", seconds=600)
    shape = arguments.shape or ("0.5b" if device.type == "cuda" else "tiny")
    peak = arguments.peak_tflops * 1e12 or peak_flops(device)
    with tempfile.TemporaryDirectory() as place:
        folder = make_model(Path(place), shape)
        options = PpoOptions(
            epochs=arguments.epochs,
            minibatch_size=arguments.samples,
            micro_batch_tokens=arguments.micro_batch_tokens,
            share_prefixes=arguments.share_prefixes,
            logits_chunk=arguments.logits_chunk,
            activation_checkpointing=arguments.activation_checkpointing,
            compile=arguments.compile,
            max_row_tokens=arguments.micro_batch_tokens,
        )
        start = Start(folder, None, None, True, 0, fastest_dtype(), world, device)
        ppo = PPO(start, options)
        found = measure(ppo, arguments, Speed(device, peak * world.size if peak else None), SHAPES[shape][-1])
    found |= {
        "shape": shape,
        "parameters": sum(p.numel() for p in ppo.policy.model.parameters()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "ranks": world.size,
        "parallel": arguments.parallel if world.size > 1 or started_by_torchrun() else "none",
        "compute_dtype": start.compute_dtype,
        "peak_tflops": peak / 1e12 if peak else None,
    }
    if world.rank == 0:
        show(found)
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=1) + "\n")


def measure(ppo: PPO, arguments: argparse.Namespace, speed: Speed, vocabulary: int) -> dict[str, object]:
    """Medians over all steps except the first."""
    batch = random_batch(arguments, vocabulary)
    steps: list[dict[str, float]] = []
    for version in range(arguments.steps + 1):
        context = StepContext(version, torch.Generator().manual_seed(version), lambda: None)
        before, began = ppo.flops(), speed.now()
        metrics = ppo.step(batch, context)
        seconds, flops = speed.now() - began, ppo.flops() - before
        step = {"seconds": seconds, "tflops": flops / 1e12, "tokens_per_second": metrics["tokens"] / seconds}
        if speed.peak_flops:
            step["mfu"] = flops / (seconds * speed.peak_flops)
        steps.append(step)
    found: dict[str, object] = {name: statistics.median(step[name] for step in steps[1:]) for name in steps[0]}
    if speed.device.type == "cuda":
        found["peak_memory_gib"] = torch.cuda.max_memory_allocated(speed.device) / 2**30
    return {**found, "steps": arguments.steps, "warm_up_seconds": steps[0]["seconds"]}


def random_batch(arguments: argparse.Namespace, vocabulary: int) -> Experience:
    """`samples` answers, four to a prompt; log-probabilities are those of chance, which cost the same."""
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(3, vocabulary, (count,), generator=generator).tolist()

    samples = []
    for index in range(arguments.samples):
        if index % 4 == 0:
            prompt = tokens(arguments.prompt_tokens)
        response = tokens(arguments.response_tokens)
        sample = types_v1.Sample(
            index=index,
            prompt_token_ids=prompt,
            response_token_ids=response,
            logprobs=[-float(torch.tensor(float(vocabulary)).log())] * len(response),
            response_mask=[True] * len(response),
            finish_reason=types_v1.FINISH_REASON_LENGTH,
            sampling=types_v1.SamplingParams(max_new_tokens=len(response), temperature=1.0),
        )
        score = float(torch.rand((), generator=generator))
        samples.append(trainer_v1.ScoredSample(sample=sample, score=score))
    return Experience(samples, [])


def make_model(place: Path, shape: str) -> Path:
    """A folder with random weights in bfloat16 and a tokenizer with the size of the vocabulary."""
    from tokenizers import Tokenizer, models

    hidden, intermediate, blocks, heads, key_value_heads, vocabulary = SHAPES[shape]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    began = time.monotonic()
    folder = place / shape
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    words = {f"w{index}": index for index in range(vocabulary)}
    backend = Tokenizer(models.WordLevel(words, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="w0", bos_token="w1", eos_token="w2").save_pretrained(
        folder
    )
    Console(stderr=True).print(f"{shape}: made in {time.monotonic() - began:.0f} s")
    return folder


def show(found: dict[str, object]) -> None:
    table = Table(title=f"PPO step, {found['shape']} on {found['device']}", show_header=False)
    for name, value in found.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, help="default: 0.5b on a GPU, tiny without one")
    parser.add_argument("--steps", type=int, default=3, help="measured steps (3)")
    parser.add_argument("--samples", type=int, default=32, help="answers per step, four per prompt (32)")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--response-tokens", type=int, default=384)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--micro-batch-tokens", type=int, default=8192)
    parser.add_argument("--logits-chunk", type=int, default=2048)
    parser.add_argument("--share-prefixes", action="store_true", help="pack answers behind their prompt")
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--parallel", choices=["ddp", "fsdp"], default="ddp", help="under torchrun")
    parser.add_argument("--peak-tflops", type=float, default=0, help="of one device; 0: by its name")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
