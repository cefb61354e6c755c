"""The members of the mixture that the benchmark trains."""

from __future__ import annotations

import models
from training import Recipe

# A sentence encoder that reads prompt and answer as a pair, trained whole: it sees what people refuse to read.
ENCODER = Recipe(
    model=models.ENCODER,
    epochs=1,
    batch_size=16,
    max_tokens=192,
    learning_rate=6e-5,
    warmup_updates=10,
    options={
        "head_learning_rate": 1e-3,
        "label_smoothing": 0.05,
        "weight_decay": 0.01,
        "micro_batch_tokens": 2048,
    },
)
# The language model with its upper third trained: it sees whether an answer is one.
LANGUAGE_MODEL = Recipe(
    model=models.POLICY,
    epochs=1,
    batch_size=16,
    max_tokens=160,
    learning_rate=5e-5,
    warmup_updates=10,
    options={"trainable_layers": 10, "weight_decay": 0.01, "micro_batch_tokens": 2048},
)
RECIPES = {"encoder": ENCODER, "language-model": LANGUAGE_MODEL}
