"""How the rollout engines are made for tests: those that need a server get one, those that are not installed skip."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.inference_server import PROTOCOLS, inference_server
from tests.support.rollout import rollout_settings
from tests.support.tiny import make_tiny_model

from accord import plugins
from accord.errors import FailedPrecondition
from accord_rollout.engine import Engine

# Their start takes tens of seconds: one for all tests of a module.
SHARED = ("vllm",)
OPTIONS: dict[str, dict[str, Any]] = {"vllm": {"kv_cache_gib": 0.25, "engine_args": {"max_num_seqs": 64}}}


@asynccontextmanager
async def make_engine(name: str, state_dir: Path, **options: Any) -> AsyncIterator[Engine]:
    """An engine of that name without weights. Skips the test where its library is not installed."""
    try:
        factory = plugins.load("accord.engines", name)
    except FailedPrecondition as missing:
        pytest.skip(f"the {name} engine is not installed here ({missing.message})")
    options = {**OPTIONS.get(name, {}), **options}
    with ExitStack() as stack:
        if name in PROTOCOLS and "url" not in options:
            started_on = make_tiny_model(state_dir / "started-on", seed=1, head_dim=32)
            options["url"] = stack.enter_context(inference_server(name, started_on))
        engine: Engine = factory(rollout_settings(state_dir, engine=name, engine_options=options))
        try:
            yield engine
        finally:
            await engine.close()
