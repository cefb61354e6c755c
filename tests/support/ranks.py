"""Ranks for tests: one process that imports torch once and forks a group of ranks for each thing to be tried.

`python -m tests.support.ranks SCENARIOS OUT` runs each scenario (a function of a module, by name) with the ranks given
and writes what rank 0 returned, as JSON. torchrun would import torch anew in every rank, seconds each.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# Of one scenario, and of all together: long, for the machine may have other work.
SECONDS = 120
ALL_SECONDS = 800


def run_scenarios(scenarios: Sequence[dict[str, Any]], out: Path) -> list[Any]:
    """What rank 0 of each gave. A scenario: {"function": "module:name", "ranks", "sharded", "arguments", "seconds"}."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    out.with_suffix(".in").write_text(json.dumps(list(scenarios)))
    command = [sys.executable, "-m", "tests.support.ranks", str(out.with_suffix(".in")), str(out)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=ALL_SECONDS)
    assert done.returncode == 0, done.stderr[-4000:]
    return list(json.loads(out.read_text()))


def main(source: Path, out: Path) -> None:
    """Runs the scenarios one after another."""
    import torch
    import torch._dynamo  # the first optimizer imports it: once here, not in each rank
    import transformers.models.llama.modeling_llama  # noqa: F401  # likewise the model

    torch.set_num_threads(1)
    scenarios = json.loads(source.read_text())
    for module in ("ppo", "reward_model", "ilql"):
        importlib.import_module(f"accord_trainer.algorithms.{module}")
    functions = [_function(scenario["function"]) for scenario in scenarios]  # imported before the fork
    found = []
    for scenario, function in zip(scenarios, functions, strict=True):
        answer = out.with_suffix(".answer")
        port = _free_port()
        children = [_fork(rank, scenario, function, port, answer) for rank in range(scenario["ranks"])]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        if any(codes):
            sys.exit(f"{scenario}: the ranks ended with {codes}")
        found.append(json.loads(answer.read_text()))
    out.write_text(json.dumps(found))


def _fork(rank: int, scenario: dict[str, Any], function: Any, port: int, answer: Path) -> int:
    child = os.fork()
    if child:
        return child
    signal.alarm(SECONDS)  # no test waits for a hung rank
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(scenario["ranks"]),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        from accord.errors import Unavailable
        from accord_trainer.distributed.process_group import ProcessGroup

        world = ProcessGroup(sharded=scenario["sharded"], seconds=scenario.get("seconds", 60))
        result = function(world, **scenario["arguments"])
        if rank == 0:
            answer.write_text(json.dumps(result))
        with contextlib.suppress(Unavailable):
            world.max(0.0)  # no rank leaves while another still communicates
    except BaseException:  # noqa: BLE001  # a forked test process must not continue as its parent
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def _function(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
