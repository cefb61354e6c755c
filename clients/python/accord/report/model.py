"""The figures of a run, independent of how they are shown."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Answer:
    """One held-out prompt and what one policy answered."""

    prompt_id: str
    prompt: str
    response: str
    score: float | None
    # The rollout engine that drew it; empty: it did not say.
    engine: str = ""


@dataclass(frozen=True)
class Dispatch:
    """What drew the run's samples (`vllm`, `2 x transformers`) from a point on; the first from the beginning.

    Not `taken`: it was refused for `reason`, or is not in yet. `iteration`: None where the events were not asked for.
    """

    engine: str
    taken: bool = True
    reason: str = ""
    iteration: int | None = None
    stage: str = ""
    step: int = 0


@dataclass(frozen=True)
class Used:
    """What a stage used: processor seconds by service, seconds for which GPUs were held (None: none was), and which
    services do not say what they use."""

    cpu_by_service: dict[str, float]
    gpu_seconds: float | None
    unknown: tuple[str, ...] = ()

    @property
    def cpu_seconds(self) -> float:
        """Of all services."""
        return sum(self.cpu_by_service.values())


@dataclass(frozen=True)
class Iteration:
    """What an iteration came to; number 0 is the base model. Figures that were not measured are None.

    `kl_nats` is in nats a response, `seconds` wall-clock, `response_tokens` a mean in tokens; `stage_used` has the
    stages whose use was measured.
    """

    number: int
    heldout_score: float | None
    kl_nats: float | None
    rm_accuracy: float | None
    promoted: bool
    seconds: float
    stage_seconds: dict[str, float] = field(default_factory=dict)
    stage_used: dict[str, Used] = field(default_factory=dict)
    response_tokens: float | None = None
    gate_reason: str = ""
    policy_uri: str = ""
    policy_digest: str = ""
    reward_model_digest: str = ""
    prompt_snapshot: str = ""
    preference_snapshot: str = ""
    answers: tuple[Answer, ...] = ()

    @property
    def cpu_seconds(self) -> float | None:
        """Processor time of all stages; None where none was measured."""
        return sum(used.cpu_seconds for used in self.stage_used.values()) if self.stage_used else None

    @property
    def gpu_seconds(self) -> float | None:
        """How long GPUs were held, times GPUs; None where none was."""
        held = [used.gpu_seconds for used in self.stage_used.values() if used.gpu_seconds is not None]
        return sum(held) if held else None


@dataclass(frozen=True)
class Step:
    """The metrics of one step of one stage (`policy`, `reward_model`, ...); `number` counts from 1 within the stage."""

    iteration: int
    stage: str
    number: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class SideBySide:
    """All answers to one held-out prompt; `before`: the base model's, `after`: those of the policy in force."""

    prompt_id: str
    prompt: str
    by_iteration: tuple[tuple[int, Answer], ...]
    before: Answer | None
    after: Answer | None


@dataclass(frozen=True)
class Report:
    """Everything that the report of a run shows."""

    run_id: str
    state: str
    message: str
    model: str
    simulated_feedback: bool
    feedback: str
    created: str
    algorithm: str
    planned_iterations: int
    iterations: tuple[Iteration, ...]
    steps: tuple[Step, ...]
    promoted_uri: str
    promoted_digest: str
    drawings: tuple[Dispatch, ...] = ()

    @property
    def base(self) -> Iteration | None:
        """The base model's row; None before it was measured."""
        return next((row for row in self.iterations if row.number == 0), None)

    @property
    def in_force(self) -> Iteration | None:
        """The row of the policy in force: the last one promoted, else the base model's."""
        promoted = [row for row in self.iterations if row.promoted and row.number > 0]
        return promoted[-1] if promoted else self.base

    @property
    def seconds(self) -> float:
        """Wall-clock of all iterations that ended."""
        return sum(row.seconds for row in self.iterations)

    @property
    def not_counted(self) -> tuple[str, ...]:
        """Services whose use is not in these figures, because they do not say it."""
        return tuple(sorted({name for row in self.iterations for u in row.stage_used.values() for name in u.unknown}))

    def side_by_side(self) -> tuple[SideBySide, ...]:
        """Answers to the same held-out prompts, base model against the policy in force, in the base model's order."""
        prompts: dict[str, str] = {}
        for row in self.iterations:
            for answer in row.answers:
                prompts.setdefault(answer.prompt_id or answer.prompt, answer.prompt)
        return tuple(self._compare(key, prompt) for key, prompt in prompts.items())

    def _compare(self, key: str, prompt: str) -> SideBySide:
        found = {
            row.number: answer
            for row in self.iterations
            for answer in row.answers
            if (answer.prompt_id or answer.prompt) == key
        }
        base, in_force = self.base, self.in_force
        return SideBySide(
            prompt_id=key,
            prompt=prompt,
            by_iteration=tuple(sorted(found.items())),
            before=found.get(base.number) if base else None,
            after=found.get(in_force.number) if in_force and in_force.number > 0 else None,
        )
