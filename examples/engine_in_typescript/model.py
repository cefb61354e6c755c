"""A bigram model for the TypeScript engine, and the reference for its log-probabilities.

python examples/engine_in_typescript/model.py DIR --seed 1
accord conformance HOST:PORT --model DIR --other DIR2 --reference examples/engine_in_typescript/model.py:logprobs
"""

from __future__ import annotations

import argparse
import json
import math
import random
import struct
from collections.abc import Sequence
from pathlib import Path

from accord.types import v1 as types_v1

LETTERS = ["<end>", *"abcdefghijklmnopqrstuvwxyz :.,!?\n", "#"]


def make_model(folder: Path, seed: int) -> Path:
    """Writes model.safetensors (`bigram.logits`, float32) and vocabulary.json; the same seed gives the same bytes."""
    size = len(LETTERS)
    chance = random.Random(seed)
    data = struct.pack(f"<{size * size}f", *(chance.gauss(0, 1.5) for _ in range(size * size)))
    entry = {"dtype": "F32", "shape": [size, size], "data_offsets": [0, len(data)]}
    header = json.dumps({"bigram.logits": entry}).encode()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    (folder / "vocabulary.json").write_text(json.dumps(LETTERS))
    return folder


def logprobs(
    folder: Path, prompt: Sequence[int], response: Sequence[int], sampling: types_v1.SamplingParams
) -> list[float]:
    """log softmax(logits / temperature, cut to top_k) of each token, given the previous token."""
    raw = (folder / "model.safetensors").read_bytes()
    table = memoryview(raw[8 + int.from_bytes(raw[:8], "little") :]).cast("f")
    size, found, last = len(LETTERS), [], prompt[-1]
    for token in response:
        row = [x / (sampling.temperature or 1.0) for x in table[last * size : (last + 1) * size]]
        if sampling.top_k:
            least = sorted(row, reverse=True)[sampling.top_k - 1]
            row = [x if x >= least else -math.inf for x in row]
        found.append(row[token] - math.log(sum(math.exp(x) for x in row)))
        last = token
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(make_model(arguments.folder, arguments.seed))


if __name__ == "__main__":
    main()
