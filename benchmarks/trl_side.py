"""TRL's side of `ppo_vs_trl.py`: runs in an environment that has TRL, writes the CPU-seconds of each step by phase.

    python benchmarks/trl_side.py --workload JSON --dtype float32|bfloat16 --out FILE

TRL is used through its public classes. The figures are differences of this process's CPU time at points in TRL's own
methods: the end of generation, the first minibatch, the end of the step. `bfloat16` is TRL's `bf16` (autocast over
float32 weights); gradient checkpointing, which is on by default, is off: it would cost another forward pass.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    TrainerCallback,
)
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
from workload import Workload

ANALYZER = SentimentIntensityAnalyzer()


class Steps:
    """The costs of the steps so far. Marks name the phase that ends; `end` closes a step."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._spent = {"generation": 0.0, "scoring": 0.0, "update": 0.0}
        self._cpu, self._clock = self._now(), time.monotonic()

    def mark(self, phase: str) -> None:
        """Adds the CPU time since the last mark to `phase`."""
        now = self._now()
        self._spent[phase] += now - self._cpu
        self._cpu = now

    def end(self, score: float) -> None:
        """Writes the step and begins the next."""
        seconds = time.monotonic() - self._clock
        with self._out.open("a") as file:
            file.write(json.dumps({**self._spent, "seconds": seconds, "score": score}) + "\n")
        self._spent = dict.fromkeys(self._spent, 0.0)
        self._cpu, self._clock = self._now(), time.monotonic()

    @staticmethod
    def _now() -> float:
        times = os.times()
        return times.user + times.system


class AtStepEnd(TrainerCallback):
    """Calls `then` with the trainer's step count."""

    def __init__(self, then: Callable[[int], None]) -> None:
        self._then = then

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        self._then(state.global_step)
        return control


def sentiment(text: str) -> float:
    """VADER's compound score, as Accord's `sentiment` scorer gives it."""
    return float(ANALYZER.polarity_scores(text)["compound"])


def common(workload: Workload, dtype: str, folder: str) -> dict[str, Any]:
    """Options of all of TRL's trainers."""
    return {
        "output_dir": folder,
        "bf16": dtype == "bfloat16",
        "use_cpu": True,
        "gradient_checkpointing": False,
        "learning_rate": workload.learning_rate,
        "adam_epsilon": 1e-5,
        "max_grad_norm": 1.0,
        "lr_scheduler_type": "constant_with_warmup",
        "report_to": [],
        "save_strategy": "no",
        "seed": workload.seed,
        "disable_tqdm": True,
        "logging_steps": 1,
    }


def chat(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def run_ppo(workload: Workload, dtype: str, steps: Steps, folder: str) -> None:
    """PPO with a separate value model, as in TRL, its head 0 like Accord's value head; otherwise the same options."""
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    tokenizer = AutoTokenizer.from_pretrained(workload.model, padding_side="left")
    rows = [
        {"input_ids": tokenizer.apply_chat_template(chat(p), add_generation_prompt=True, return_dict=False)}
        for prompts in workload.step_prompts()
        for p in prompts
        for _ in range(workload.group)
    ]
    policy, reference = (AutoModelForCausalLM.from_pretrained(workload.model, dtype=torch.float32) for _ in range(2))
    value = AutoModelForSequenceClassification.from_pretrained(workload.model, num_labels=1, dtype=torch.float32)
    torch.nn.init.zeros_(value.score.weight)
    found: dict[str, Any] = {}
    scored_by_model, generate = ppo_trainer.get_reward, ppo_trainer.batch_generation

    def get_reward(model: Any, ids: Any, pad: int, context: int) -> Any:
        if model is not lexicon:
            return scored_by_model(model, ids, pad, context)
        texts = tokenizer.batch_decode(ids[:, context:], skip_special_tokens=True)
        found["scores"] = torch.tensor([sentiment(text) for text in texts])
        return None, found["scores"].clone(), None

    def batch_generation(*args: Any, **keywords: Any) -> Any:
        steps.mark("scoring")  # the time between two steps is close to nothing
        drawn = generate(*args, **keywords)
        steps.mark("generation")
        found["updating"] = False
        return drawn

    class Lexicon(torch.nn.Module):
        """A placeholder for the reward model; `get_reward` above scores."""

    lexicon = Lexicon()
    ppo_trainer.get_reward, ppo_trainer.batch_generation = get_reward, batch_generation
    config = PPOConfig(
        **common(workload, dtype, folder),
        warmup_steps=max(1, 10 // (2 * workload.epochs)),
        per_device_train_batch_size=workload.samples,
        gradient_accumulation_steps=1,
        num_mini_batches=max(1, workload.samples // workload.minibatch),
        local_rollout_forward_batch_size=workload.samples,
        total_episodes=workload.samples * workload.rounds,
        num_ppo_epochs=workload.epochs,
        response_length=workload.tokens,
        stop_token="eos",
        temperature=1.0,
        kl_coef=workload.kl_coefficient,
        gamma=1.0,
        lam=0.95,
        num_sample_generations=0,
    )

    def ended(_: int) -> None:
        steps.mark("update")
        steps.end(float(found["scores"].mean()))

    trainer = PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=policy,
        ref_model=reference,
        reward_model=lexicon,
        value_model=value,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows[:1]),
        callbacks=[AtStepEnd(ended)],
    )
    # In order, without TRL's shuffling, so that both sides see the same prompts in the same step.
    trainer.dataloader = torch.utils.data.DataLoader(
        Dataset.from_list(rows), batch_size=workload.samples, collate_fn=DataCollatorWithPadding(tokenizer)
    )
    accumulate = trainer.accelerator.accumulate

    def accumulating(*models: Any) -> Any:
        if not found["updating"]:
            steps.mark("scoring")
            found["updating"] = True
        return accumulate(*models)

    trainer.accelerator.accumulate = accumulating
    steps.mark("scoring")
    steps._spent = dict.fromkeys(steps._spent, 0.0)
    trainer.train()


def run_grpo(workload: Workload, dtype: str, steps: Steps, folder: str) -> None:
    """GRPO with the paper's loss and Accord's defaults: beta .04, one update for each minibatch, one epoch."""
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(workload.model, padding_side="left")
    rows = [{"prompt": chat(p)} for prompts in workload.step_prompts() for p in prompts]
    updates = max(1, workload.samples // workload.minibatch) * workload.epochs
    scores: list[float] = []

    def reward(completions: list[list[dict[str, str]]], **_: Any) -> list[float]:
        scores[:] = [sentiment(completion[0]["content"]) for completion in completions]
        return list(scores)

    config = GRPOConfig(
        **common(workload, dtype, folder),
        warmup_steps=10,
        model_init_kwargs={"dtype": "float32"},
        per_device_train_batch_size=workload.minibatch,
        gradient_accumulation_steps=1,
        steps_per_generation=max(1, workload.samples // workload.minibatch),
        num_iterations=workload.epochs,
        num_generations=workload.group,
        max_completion_length=workload.tokens,
        max_steps=workload.rounds * updates,
        temperature=1.0,
        beta=0.04,
        loss_type="grpo",
        shuffle_dataset=False,
    )

    def ended(step: int) -> None:
        steps.mark("update")
        if step % updates == 0:
            steps.end(sum(scores) / len(scores))

    class Trainer(GRPOTrainer):
        def _generate(self, *args: Any, **keywords: Any) -> Any:
            steps.mark("scoring")
            drawn = super()._generate(*args, **keywords)
            steps.mark("generation")
            return drawn

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            scored = super()._generate_and_score_completions(inputs)
            steps.mark("scoring")
            return scored

    trainer = Trainer(
        model=workload.model,
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[AtStepEnd(ended)],
    )
    steps.mark("scoring")
    steps._spent = dict.fromkeys(steps._spent, 0.0)
    trainer.train()


def run_rm(workload: Workload, dtype: str, steps: Steps, folder: str) -> None:
    """A reward model, one update for each step's pairs. Tokenization happens before and is not counted."""
    from trl import RewardConfig, RewardTrainer

    tokenizer = AutoTokenizer.from_pretrained(workload.model)
    pairs = [pair for step in workload.step_pairs() for pair in step]
    rows = [
        {
            "prompt": chat(pair["prompt"]),
            "chosen": [{"role": "assistant", "content": pair["chosen"]}],
            "rejected": [{"role": "assistant", "content": pair["rejected"]}],
        }
        for pair in pairs
    ]
    model = AutoModelForSequenceClassification.from_pretrained(workload.model, num_labels=1, dtype=torch.float32)
    model.config.pad_token_id = tokenizer.pad_token_id
    config = RewardConfig(
        **common(workload, dtype, folder),
        warmup_steps=10,
        per_device_train_batch_size=workload.pairs_a_step,
        max_steps=workload.rounds,
        max_length=1024,
        center_rewards_coefficient=0.01,
    )
    accuracy = SimpleNamespace(value=0.0)

    class Trainer(RewardTrainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def log(self, logs: dict[str, float], *args: Any, **keywords: Any) -> None:
            super().log(logs, *args, **keywords)
            for key, value in logs.items():
                if key.endswith("accuracy"):
                    accuracy.value = float(value)

    class AtLog(TrainerCallback):
        """Accuracy of a step is known when it is logged, right after the step's end."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            steps.mark("update")

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            found = [float(v) for k, v in (logs or {}).items() if k.endswith("accuracy")]
            if found:
                steps.end(found[0])

    trainer = Trainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[AtLog()],
    )
    steps.mark("scoring")
    steps._spent = dict.fromkeys(steps._spent, 0.0)
    trainer.train()


PARTS = {"ppo": run_ppo, "curve": run_ppo, "grpo": run_grpo, "rm": run_rm}


def main() -> None:
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", required=True, help="JSON of a Workload")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), required=True)
    parser.add_argument("--out", type=Path, required=True, help="append one JSON object per step to this file")
    args = parser.parse_args()
    workload = Workload.from_json(args.workload)
    with tempfile.TemporaryDirectory() as folder:
        PARTS[workload.part](workload, args.dtype, Steps(args.out), folder)


if __name__ == "__main__":
    main()
