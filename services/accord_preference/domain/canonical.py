"""Canonical forms: the bytes that determine ids, splits and snapshot digests, the same on every machine.

Canonical JSON is UTF-8 with sorted keys, no spaces, numbers in the shortest form that round-trips, and no NaN.
"""

from __future__ import annotations

import hashlib
import json
from json.encoder import encode_basestring
from typing import Any

from accord.preference import v1 as preference_v1
from accord.types import v1 as types_v1

# Shared, because json.dumps makes a new encoder for each call with these settings.
_decoder = json.JSONDecoder()
_encoder = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


# A text as canonical JSON.
canonical_text = encode_basestring


def canonical_json(value: Any) -> str:
    """`value` as canonical JSON."""
    return _encoder.encode(value)


def read_json(text: str) -> Any:
    """The value of canonical JSON. Faster than `json.loads`, which also looks for spaces."""
    return _decoder.raw_decode(text)[0]


def digest(kind: str, content: str) -> str:
    """SHA-256 in hex of `content`, canonical JSON; `kind` separates the digests of different kinds of things."""
    return hashlib.sha256(f"accord.{kind}.v1\n{content}".encode()).hexdigest()


def array(*elements: str) -> str:
    """The canonical JSON of an array, from the canonical JSON of its elements, which are not encoded again."""
    return f"[{','.join(elements)}]"


def members(**parts: str) -> str:
    """The canonical JSON of an object, from the canonical JSON of its members. Members that are "" are left out; "" if
    no members remain."""
    kept = [f'"{name}":{part}' for name, part in sorted(parts.items()) if part]
    return f"{{{','.join(kept)}}}" if kept else ""


def conversation_json(conversation: types_v1.Conversation) -> str:
    """[[role, content], ...], oldest turn first."""
    return array(*[array(canonical_text(turn.role), canonical_text(turn.content)) for turn in conversation.messages])


def origin_value(origin: preference_v1.CompletionOrigin) -> dict[str, Any] | None:
    """The fields of the origin by name; None if nothing is known, as for imported completions. The engine is included
    only if it is known, so that completions from before it was recorded keep their ids."""
    value: dict[str, Any] = {
        "run_id": origin.run_id,
        "iteration": origin.iteration,
        "weights_version": origin.weights_version,
        "weights_digest": origin.weights_digest,
        "seed": origin.seed,
    } | ({"engine": origin.engine} if origin.engine else {})
    return value if any(value.values()) else None


def prompt_id(conversation: str) -> str:
    """The id of a prompt: the digest of its conversation alone, given as canonical JSON."""
    return digest("prompt", conversation)


def completion_id(prompt: str, text: str, origin: str | None, finish_reason: int = 0) -> str:
    """The id of a completion: the digest of its prompt's id, text, origin (canonical JSON) and, if known, finish
    reason."""
    ended = (str(finish_reason),) if finish_reason else ()
    return digest("completion", array(canonical_text(prompt), canonical_text(text), origin or "null", *ended))


def feedback_id(prompt: str, annotator: str, annotator_kind: int, judgement: str, task: str, more: str = "") -> str:
    """The id of feedback: the digest of the annotator, the judgement (canonical JSON), the task ("": none) and the rest
    (`more`: canonical JSON of criteria, comment and the corrected feedback; "": nothing)."""
    who = (canonical_text(annotator), str(annotator_kind))
    rest = (more,) if more else ()
    return digest("feedback", array(canonical_text(prompt), *who, judgement, canonical_text(task), *rest))


def split_of(prompt: str, heldout_fraction: float, salt: str) -> int:
    """The split of the prompt with this id: held out if its hash, read as a number in [0, 1), is below
    `heldout_fraction`."""
    number = int.from_bytes(hashlib.sha256(f"{salt}\n{prompt}".encode()).digest()[:8], "big") / 2**64
    return int(preference_v1.SPLIT_HELDOUT if number < heldout_fraction else preference_v1.SPLIT_TRAIN)


def prompt_record_digest(prompt: str, split: int) -> str:
    """The digest of a prompt as a record of a snapshot.

    The source is left out, because it is a label that the first import sets.
    """
    return digest("record.prompt", array(canonical_text(prompt), str(split)))


def feedback_record_digest(
    prompt: str,
    split: int,
    annotator: str,
    annotator_kind: int,
    judgement: str,
    source: str,
    late: bool,
    more: str = "",
) -> str:
    """The digest of feedback as a record of a snapshot. `judgement`, `more`: canonical JSON; `more` has criteria and
    comment, or is "" if there are none.

    Times and tasks are left out, so that the same content has the same digest wherever and whenever it was stored.
    Conversation, texts and origins are covered by the ids of the prompt and the completions, which are their digests.
    """
    who = (canonical_text(annotator), str(annotator_kind))
    rest = (more,) if more else ()
    about = (canonical_text(prompt), str(split))
    said = (judgement, canonical_text(source), "true" if late else "false")
    return digest("record.feedback", array(*about, *who, *said, *rest))
