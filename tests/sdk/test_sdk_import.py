"""`import accord` is fast, light and complete."""

from __future__ import annotations

import subprocess
import sys

import pytest

import accord

pytestmark = pytest.mark.process

PROBE = """
import sys, time
started = time.perf_counter()
import accord
print(time.perf_counter() - started)
accord.Client, accord.SyncClient, accord.load_run, accord.formats, accord.discovery
heavy = {"torch", "transformers", "numpy", "sqlalchemy", "typer", "rich", "pydantic", "accord_runtime"}
print(",".join(sorted(heavy & sys.modules.keys())))
"""


def test_import_loads_no_torch_and_takes_less_than_a_second() -> None:
    runs = [
        subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True).stdout.split("\n")
        for _ in range(2)
    ]
    assert min(float(run[0]) for run in runs) < 1.0
    assert {run[1] for run in runs} == {""}


def test_everything_that_is_promised_is_there() -> None:
    for name in accord.__all__:
        assert getattr(accord, name) is not None
        assert name in dir(accord)
    assert not hasattr(accord, "no_such_thing")
