"""Your own reward without packaging: a function in a file, named in a run file or in a ScorerSpec.

    scorers: [{name: "python:./examples/reward.py:score", options: {words: 20}}]

The reward service loads it from its own folder (see `python -m accord_reward --help`: --python-root, --allow-python).
An exception fails that one answer; it never becomes a zero.
"""

from __future__ import annotations


def score(prompt: list[dict[str, str]], response: str, words: float = 25) -> float:
    """1 for an answer of about `words` words that ends its sentence and does not repeat the question; otherwise less.

    prompt: the conversation, `{"role": ..., "content": ...}`, oldest turn first. Returns a number in [-1, 1].
    """
    said = response.split()
    if not said:
        return -1.0
    length = min(len(said), words) / max(len(said), words)
    ends = 0.0 if response.rstrip().endswith((".", "!", "?")) else 0.5
    question = prompt[-1]["content"].lower()
    parrots = 0.5 if len(response) > 10 and response.lower()[:40] in question else 0.0
    return length - ends - parrots
