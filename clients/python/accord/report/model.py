"""The figures of a run, independent of their presentation."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Answer:
    """One held-out prompt and the answer of one policy."""

    prompt_id: str
    prompt: str
    response: str
    score: float | None
    # The rollout engine that generated it; empty if unknown.
    engine: str = ""


@dataclass(frozen=True)
class EngineUse:
    """An engine that generated the run's samples (`vllm`, `2 x transformers`) from some point on; the first from the
    start.

    Not `taken`: it was refused for `reason`, or does not serve yet. `iteration` is None without the run's events.
    """

    engine: str
    taken: bool = True
    reason: str = ""
    iteration: int | None = None
    stage: str = ""
    step: int = 0


@dataclass(frozen=True)
class Used:
    """The use of a stage: processor seconds by service, seconds for which GPUs were held (None if none were), and the
    services that do not report their use."""

    cpu_by_service: dict[str, float]
    gpu_seconds: float | None
    unknown: tuple[str, ...] = ()

    @property
    def cpu_seconds(self) -> float:
        """The sum over all services."""
        return sum(self.cpu_by_service.values())


@dataclass(frozen=True)
class Iteration:
    """The results of an iteration; number 0 is the base model. Figures that were not measured are None.

    `kl_nats` is in nats per response, `seconds` wall-clock, `response_tokens` a mean in tokens; `stage_used` has the
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
        """Processor time of all stages; None if none was measured."""
        return sum(used.cpu_seconds for used in self.stage_used.values()) if self.stage_used else None

    @property
    def gpu_seconds(self) -> float | None:
        """GPU seconds held by all stages; None if none was measured."""
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
    """All answers to one held-out prompt; `before`: the base model's, `after`: the active policy's."""

    prompt_id: str
    prompt: str
    by_iteration: tuple[tuple[int, Answer], ...]
    before: Answer | None
    after: Answer | None


@dataclass(frozen=True)
class Report:
    """The complete content of a run's report."""

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
    engines: tuple[EngineUse, ...] = ()

    @property
    def base(self) -> Iteration | None:
        """The row of the base model; None until it is measured."""
        return next((row for row in self.iterations if row.number == 0), None)

    @property
    def active(self) -> Iteration | None:
        """The row of the policy that the gate promoted last, else that of the base model."""
        promoted = [row for row in self.iterations if row.promoted and row.number > 0]
        return promoted[-1] if promoted else self.base

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of all finished iterations."""
        return sum(row.seconds for row in self.iterations)

    @property
    def not_counted(self) -> tuple[str, ...]:
        """Services whose use is missing from these figures because they do not report it."""
        return tuple(sorted({name for row in self.iterations for u in row.stage_used.values() for name in u.unknown}))

    def side_by_side(self) -> tuple[SideBySide, ...]:
        """Answers of the base model and the active policy to the same held-out prompts, in the base model's order."""
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
        base, active = self.base, self.active
        return SideBySide(
            prompt_id=key,
            prompt=prompt,
            by_iteration=tuple(sorted(found.items())),
            before=found.get(base.number) if base else None,
            after=found.get(active.number) if active and active.number > 0 else None,
        )
