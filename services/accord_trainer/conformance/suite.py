"""Runs the checks on one algorithm."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from accord.conformance.verdict import NotApplicable, Unmet, Verdict
from accord.errors import AccordError, InvalidArgument
from accord_models.tiny import make_tiny_model
from accord_trainer.algorithm import Algorithm
from accord_trainer.conformance import checks as checks  # fills CHECKS
from accord_trainer.conformance.bench import Bench
from accord_trainer.conformance.check import CHECKS, Check, Outcome

log = logging.getLogger(__name__)


def conformance(
    algorithm: type[Algorithm], options: Mapping[str, Any] | None = None, only: Sequence[str] = ()
) -> Iterator[Outcome]:
    """Runs the checks whose name matches one of the patterns `only` (all by default) on a tiny model.

    `options` are those of the algorithm. InvalidArgument if no check matches.
    """
    selected = [one for one in CHECKS if not only or any(fnmatch(one.name, pattern) for pattern in only)]
    if not selected:
        names = ", ".join(one.name for one in CHECKS)
        raise InvalidArgument.at("only", f"no check is named {', '.join(only)}; available: {names}")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(algorithm, dict(options or {}), make_tiny_model(Path(folder) / "model"), Path(folder))
        for one in selected:
            yield _outcome(one, bench)


def _outcome(one: Check, bench: Bench) -> Outcome:
    start = time.monotonic()
    verdict, detail = Verdict.met, ""
    try:
        one.run(bench)
    except Unmet as found:
        verdict, detail = Verdict.unmet, str(found)
    except NotApplicable as why:
        verdict, detail = Verdict.skipped, str(why)
    except AccordError as error:
        verdict, detail = Verdict.unmet, f"{error.code.name} {error.reason}: {error.message}"
    except Exception as error:
        log.warning("check %s: the algorithm raised", one.name, exc_info=True)
        verdict, detail = Verdict.unmet, f"raised {type(error).__name__}: {error}"
    return Outcome(one, verdict, detail, time.monotonic() - start)
