"""A real reward service on a free port, its client, and tiny reward models for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.tiny import make_tiny_model

import accord
from accord.reward import v1 as reward_v1
from accord.types import v1 as types_v1
from accord_reward.service import build
from accord_reward.settings import RewardSettings
from accord_runtime.serving.server import serving


@asynccontextmanager
async def reward_client(folder: Path, **settings: Any) -> AsyncIterator[accord.Client]:
    """A client of a reward service with state and python: scorers in `folder`."""
    chosen = RewardSettings(**{"state_dir": folder / "state", "python_root": folder, **settings})
    async with serving(await build(chosen), chosen) as address, accord.Client(reward=address) as client:
        yield client


def make_reward_model(folder: Path, seed: int = 0, ensemble: int = 1) -> types_v1.WeightsRef:
    """A tiny reward model (2 layers, random), or an ensemble, in `folder`/model, published as file."""
    from accord_models.loading import new_reward_model
    from accord_models.publishing import save_model
    from accord_models.tokenizer import load_tokenizer

    trunk = make_tiny_model(folder / "trunk", seed)
    model = new_reward_model(trunk, seed, ensemble=ensemble)
    digest = save_model(model, load_tokenizer(trunk), folder / "model", "float32")
    return types_v1.WeightsRef(uri=(folder / "model").as_uri(), digest=digest)


def item(prompt: str, response: str, item_id: str = "") -> reward_v1.ScoreItem:
    """A response to a prompt of one user turn."""
    turns = types_v1.Conversation(messages=[types_v1.ChatMessage(role="user", content=prompt)])
    return reward_v1.ScoreItem(item_id=item_id, prompt=turns, response=response)


def scorer(name: str, options: Mapping[str, Any] | None = None, **fields: Any) -> reward_v1.ScorerSpec:
    """One part of a mixture."""
    spec = reward_v1.ScorerSpec(name=name, **fields)
    if options:
        spec.options.update(dict(options))
    return spec


def values(results: list[reward_v1.ScoreResult]) -> list[float]:
    """The scores; an item that failed is an error here."""
    for result in results:
        assert result.HasField("score"), result.failure.message
    return [result.score.value for result in results]
