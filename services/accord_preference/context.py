"""What every part of the service works with, and checks that several parts make."""

from __future__ import annotations

from collections.abc import Callable

from accord.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from accord.preference import v1 as preference_v1
from accord_preference.settings import PreferenceSettings
from accord_preference.storage.store import CompletionRow, PromptRow, Reader, Store, Writer
from accord_runtime.serving.idempotency import OnceInTransaction

SPLITS = (preference_v1.SPLIT_UNSPECIFIED, preference_v1.SPLIT_TRAIN, preference_v1.SPLIT_HELDOUT)


class Context:
    """What all parts share: the store, the settings, the clock, and the responses that were given before (`once`)."""

    def __init__(self, store: Store, settings: PreferenceSettings, clock: Callable[[], float]):
        """`clock`: seconds since 1970; the service uses no other."""
        self.store = store
        self.settings = settings
        self.once: OnceInTransaction[Writer] = OnceInTransaction(store, self.now_us)
        self._clock = clock

    def now_us(self) -> int:
        """Now, in microseconds since 1970."""
        return int(self._clock() * 1_000_000)


def check_split(split: int) -> int:
    """The split of a filter, 0 for both sides. InvalidArgument for one that there is not."""
    if split not in SPLITS:
        raise InvalidArgument.at("split", f"is {split}; must be SPLIT_TRAIN, SPLIT_HELDOUT, or unset for both")
    return split


def check_size(text: str, most: int, path: str) -> None:
    """InvalidArgument, TEXT_TOO_LONG, for a text of more than `most` bytes of UTF-8."""
    if len(text) * 4 > most and (size := len(text.encode())) > most:
        raise InvalidArgument.at(
            path,
            f"has {size:,} bytes, and at most {most:,} are taken; shorten it, or raise max_text_bytes of the service",
            reason="TEXT_TOO_LONG",
        )


def check_annotator(annotator: preference_v1.Annotator, path: str) -> None:
    """InvalidArgument for an annotator without id or of a kind that there is not."""
    if not annotator.annotator_id:
        raise InvalidArgument.at(f"{path}.annotator_id", "must be set")
    known = (
        preference_v1.ANNOTATOR_KIND_HUMAN,
        preference_v1.ANNOTATOR_KIND_SIMULATED,
        preference_v1.ANNOTATOR_KIND_MODEL,
    )
    if annotator.kind not in known:
        raise InvalidArgument.at(f"{path}.kind", "must say who judged: a human, a simulated annotator or a model")


def unknown(what: str, name: str, field: str) -> NotFound:
    """The error for something that does not exist, naming it and the field that asked for it."""
    return NotFound(
        f"{field}: there is no {what} {name!r}",
        reason=f"{what.upper()}_NOT_FOUND",
        metadata={"field": field, f"{what}_id": name},
    )


async def admit(tx: Writer, annotator: preference_v1.Annotator, now_us: int) -> None:
    """Makes an annotator known. PermissionDenied, ANNOTATOR_EXCLUDED, for one who is not to judge."""
    known = await tx.annotator(annotator.annotator_id, annotator.kind)
    if known is None:
        await tx.meet([(annotator.annotator_id, annotator.kind)], now_us)
    elif known.state != preference_v1.ANNOTATOR_STATE_ACTIVE:
        why = "has withdrawn" if known.state == preference_v1.ANNOTATOR_STATE_WITHDRAWN else "is excluded"
        raise PermissionDenied(
            f"{annotator.annotator_id} {why}: they get no tasks, and no feedback of theirs is taken",
            reason="ANNOTATOR_EXCLUDED",
            metadata={"annotator_id": annotator.annotator_id},
        )


async def judged_of(
    tx: Reader, prompt_id: str, fields: dict[str, str], prompt_field: str
) -> tuple[PromptRow, dict[str, CompletionRow]]:
    """A prompt and those of its completions that `fields` (completion id -> field of the request) names.

    NotFound names what does not exist; InvalidArgument names a completion that answers another prompt;
    FailedPrecondition, PROMPT_DELETED, says that nobody is to judge answers to this prompt any more.
    """
    prompt = (await tx.prompts([prompt_id])).get(prompt_id)
    if prompt is None:
        raise unknown("prompt", prompt_id, prompt_field)
    if await tx.deleted([prompt_id]):
        raise FailedPrecondition(
            f"{prompt_field}: prompt {prompt_id} was deleted; feedback on it is not taken any more",
            reason="PROMPT_DELETED",
            metadata={"prompt_id": prompt_id},
        )
    answers = await tx.completions(list(fields))
    for name, field in fields.items():
        if name not in answers:
            raise unknown("completion", name, field)
        if answers[name].prompt_id != prompt_id:
            raise InvalidArgument.at(field, f"{name} answers another prompt ({answers[name].prompt_id})")
    return prompt, answers
