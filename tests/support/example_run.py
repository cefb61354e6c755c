"""A run as the controller reports it after two iterations, and its events; one answer is hostile to careless pages."""

from __future__ import annotations

import math
import random

from accord.controller import v1 as controller_v1

HOSTILE = '<script>alert("owned")</script> & <b>bold</b> {{ 7 * 7 }} \u202eback'
PROMPTS = (
    "My neighbour brought me soup while I was ill. How do I thank her?",
    "Describe a rainy Monday in the city.",
    HOSTILE,
)
ANSWERS = (
    ("You could write her a note.", "It is wet and grey, and everybody is late.", HOSTILE),
    ("What a kind gesture! Write her a warm note.", "Rain, reflections and a wonderful calm.", "Lovely!"),
    ("What a lovely, kind gesture! Thank her with a happy smile and a warm note.", "A beautiful, fresh day!", ""),
)


def finished_run(run_id: str = "demo") -> controller_v1.Run:
    """Two iterations after the base model, both promoted, simulated annotators."""
    run = controller_v1.Run(run_id=run_id, spec={"model": "models/smollm2", "iterations": 2, "prompts": {}})
    run.spec.feedback.simulated.scorers.add(name="sentiment")
    run.create_time.FromJsonString("2026-03-04T05:06:07Z")
    status = run.status
    status.state = controller_v1.RUN_STATE_SUCCEEDED
    status.iteration, status.stage = 2, controller_v1.STAGE_EVALUATE
    status.simulated_feedback = True
    status.resolved_spec.CopyFrom(run.spec)
    status.resolved_spec.policy.algorithm = "ppo"
    for number, score, kl, accuracy in ((0, 0.118, 0.0, None), (1, 0.402, 3.1, 0.81), (2, 0.575, 5.4, 0.84)):
        row = status.iterations.add(
            iteration=number, heldout_score=score, kl_nats=kl, rm_accuracy=accuracy, promoted=number > 0,
            seconds=41.2 if number == 0 else 480.5 + number, response_tokens=28.5 - number, prompt_snapshot="aa" * 32,
        )  # fmt: skip
        if number == 0:
            row.stage_seconds.update({"prepare": 12.0, "evaluate": 29.2})
            row.stage_usage["prepare"].cpu_seconds.update({"trainer": 9.5, "rollout": 3.0})
        else:
            row.stage_seconds.update({"collect": 95.0, "reward_model": 60.0, "policy": 290.0, "evaluate": 35.5})
            row.stage_usage["policy"].cpu_seconds.update({"trainer": 400.0, "rollout": 80.0, "controller": 2.5})
            row.stage_usage["policy"].gpu_seconds = 240.0
            row.stage_usage["policy"].unknown.append("reward")
            row.gate_reason = f"held-out score {score} beats the promoted policy's"
            row.preference_snapshot = "bb" * 32
            row.reward_model.digest = "cc" * 32
        row.policy.uri, row.policy.digest, row.policy.version = (
            f"file:///models/p{number}",
            f"{number}d" * 32,
            20 * number,
        )
        for index, prompt in enumerate(PROMPTS):
            row.samples.add(
                prompt_id=f"p{index}", prompt=prompt, response=ANSWERS[number][index], score=score + index / 10
            )
    status.promoted.CopyFrom(status.iterations[2].policy)
    return run


def events(run_id: str = "demo") -> list[controller_v1.RunEvent]:
    """The events of `finished_run`: reward-model and policy steps of both iterations, one of them done twice."""
    draw = random.Random(0)
    found: list[controller_v1.RunEvent] = []

    def add(
        iteration: int, stage: controller_v1.Stage, kind: str, step: int = 0, total: int = 0, **metrics: float
    ) -> None:
        event = controller_v1.RunEvent(
            run_id=run_id, sequence=len(found) + 1, iteration=iteration, stage=stage, kind=kind, step=step,
            total_steps=total, metrics=metrics,
        )  # fmt: skip
        event.time.FromSeconds(1_770_000_000 + 7 * len(found))
        found.append(event)

    for iteration in (1, 2):
        add(iteration, controller_v1.STAGE_COLLECT, "stage_started")
        add(iteration, controller_v1.STAGE_COLLECT, "stage_finished")
        for step in range(1, 9):
            accuracy = 1 - 0.5 * math.exp(-step / 3) + draw.gauss(0, 0.03)
            add(
                iteration,
                controller_v1.STAGE_REWARD_MODEL,
                "step",
                step,
                8,
                loss=0.69 * math.exp(-step / 9),
                accuracy=accuracy,
            )
        for step in range(1, 21):
            progress = (iteration - 1 + step / 20) / 2
            if step == 5:
                add(iteration, controller_v1.STAGE_POLICY, "step", step, 20, reward=-99.0, kl_k1=99.0)
            add(
                iteration, controller_v1.STAGE_POLICY, "step", step, 20, reward=progress - 0.2 + draw.gauss(0, 0.04),
                score=progress + draw.gauss(0, 0.04), kl_k1=5 * progress + draw.gauss(0, 0.2),
                response_tokens=28 - 2 * progress, samples_per_second=2.4, eta_seconds=14.0 * (20 - step), loss=0.1,
            )  # fmt: skip
        add(iteration, controller_v1.STAGE_EVALUATE, "iteration_finished")
    add(2, controller_v1.STAGE_EVALUATE, "succeeded")
    return found
