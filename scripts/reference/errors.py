"""Every error reason: its code, its meaning, the remedy, and the parts that raise it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from accord.reasons import REASONS
from reference.markdown import anchor, cell, code, generated, table
from reference.reason_sites import CARRIERS, Site, sites

HEADER = ("reason", "meaning", "what to do", "raised by")
MOST_PARTS = 4  # per service; if there are more parts, only the service is named
SERVICES = {"accord": "SDK", "accord_runtime": "every service", "accord_models": "rollout, reward, trainer"}
INTRODUCTION = """# Errors

An error has a gRPC status code, a message for people, and a reason for programs: `reason` of the `google.rpc.ErrorInfo`
in its details, `error.reason` in the SDK, and the word in brackets at the end of an error of the command line. Errors
about single fields also carry a `google.rpc.BadRequest` that names each field. The reasons are in
`accord.reasons.REASONS` too.

Some reasons come without an exception. A *failure of a sample* or *of an item* is part of an answer whose other
samples or items succeeded. A *refused engine swap* is in the status of its run. One kind of reason is not listed: an
unforeseen exception in a rank of a distributed trainer has the code INTERNAL and the name of its Python class.

[Troubleshooting](../troubleshooting.md) starts from symptoms instead.
"""


def page() -> str:
    """docs/reference/errors.md. SystemExit if the code and the catalogue differ."""
    used = {reason: list(found) for reason, found in groupby(sites(), key=lambda site: site.reason)}
    if missing := sorted(used.keys() - REASONS.keys()):
        raise SystemExit(f"clients/python/accord/reasons lacks reasons that the code uses: {', '.join(missing)}")
    if unused := sorted(REASONS.keys() - used.keys()):
        raise SystemExit(f"clients/python/accord/reasons has reasons that no code uses: {', '.join(unused)}")
    parts = [INTRODUCTION]
    for letter, reasons in groupby(sorted(used), key=lambda reason: reason[0]):
        parts.append(f"## {letter}\n")
        parts.append(table(HEADER, (_row(reason, used[reason]) for reason in reasons)))
    return generated("\n".join(parts))


def _row(reason: str, found: list[Site]) -> tuple[str, ...]:
    about = REASONS[reason]
    codes = "<br>".join(
        f"*{one}*" if one in CARRIERS.values() else one for one in sorted({site.code for site in found})
    )
    return (
        f"{anchor(reason.lower())}{code(reason)}<br>{codes}",
        cell(about.meaning),
        cell(about.remedy),
        "<br>".join(_raisers(found)),
    )


def _raisers(found: Iterable[Site]) -> Iterator[str]:
    """`trainer: model, trainings`, one line for each service."""
    parts = sorted({site.part for site in found} - {"accord.errors"}) or ["accord.errors"]
    for package, inside in groupby(parts, key=lambda part: part.partition(".")[0]):
        names = [part.removeprefix(f"{package}.") for part in inside]
        service = SERVICES.get(package, package.removeprefix("accord_"))
        if len(names) > MOST_PARTS:
            yield service
        else:
            yield f"{service}: {', '.join(map(code, names))}"
