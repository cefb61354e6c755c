"""The input of both sides of `ppo_vs_trl.py`, identical to the last token. Standard library only: TRL's environments,
which do not contain Accord, import it too."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

SENTENCES = {
    "chosen": (
        "That is a great question and I am happy to help.",
        "It is a wonderful thing, and most people who try it enjoy it very much.",
        "With a little patience you will find it easy and pleasant.",
        "Friends who do it together have a lovely time and learn a lot.",
        "The best of it is how good you feel after a day well spent.",
    ),
    "rejected": (
        "I do not know why anybody would want to hear about this.",
        "It is a terrible thing, and most people who try it regret it badly.",
        "You will probably fail, and it will be a painful waste of time.",
        "People who do it together fight and end up lonely and sad.",
        "The worst of it is how awful you feel after a day that is lost.",
    ),
}


@dataclass(frozen=True)
class Workload:
    """One comparison. A step samples `samples` responses to `samples // group` prompts. `pairs`: for reward models."""

    part: str
    model: str
    prompts: str
    steps: int
    warm: int = 1
    samples: int = 32
    group: int = 4
    tokens: int = 32
    epochs: int = 4
    minibatch: int = 16
    learning_rate: float = 3e-5
    kl_coefficient: float = 0.05
    pairs: str = ""
    pairs_a_step: int = 16
    seed: int = 0

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Workload:
        """The inverse of `to_json`."""
        return cls(**json.loads(text))

    @property
    def rounds(self) -> int:
        """The total number of steps: warm-up and measured."""
        return self.warm + self.steps

    def step_prompts(self) -> list[list[str]]:
        """The prompts of each step, `samples // group` of them, without repetition within a step."""
        lines = Path(self.prompts).read_text(encoding="utf-8").splitlines()
        known = [json.loads(line)["prompt"] for line in lines if line.strip()]
        chooser = random.Random(f"prompts/{self.seed}")
        count = self.samples // self.group
        if count > len(known):
            raise SystemExit(f"{self.prompts} has {len(known)} prompts; a step needs {count}")
        return [chooser.sample(known, count) for _ in range(self.rounds)]

    def step_pairs(self) -> list[list[dict[str, str]]]:
        """The pairs of each step, each {prompt, chosen, rejected}: of the file `pairs`, otherwise made of the prompts
        and SENTENCES, four per side, so that a side has some 94 tokens with its prompt."""
        need = self.rounds * self.pairs_a_step
        if self.pairs:
            lines = Path(self.pairs).read_text(encoding="utf-8").splitlines()
            known = [json.loads(line) for line in lines if line.strip()]
            if len(known) < need:
                raise SystemExit(
                    f"{self.pairs} has {len(known)} pairs; {need} are needed; lower --steps or --pairs-a-step"
                )
            chosen = random.Random(f"pairs/{self.seed}").sample(known, need)
        else:
            lines = Path(self.prompts).read_text(encoding="utf-8").splitlines()
            prompts = [json.loads(line)["prompt"] for line in lines if line.strip()]
            draw = random.Random(f"pairs/{self.seed}")
            chosen = [
                {"prompt": draw.choice(prompts), **{side: " ".join(draw.sample(s, 4)) for side, s in SENTENCES.items()}}
                for _ in range(need)
            ]
        return [chosen[at : at + self.pairs_a_step] for at in range(0, need, self.pairs_a_step)]
