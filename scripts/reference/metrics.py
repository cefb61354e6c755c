"""Every Prometheus metric of every service, read from the code that defines it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from reference.markdown import cell, code, generated, lines, sentence, table

SERVICES = Path(__file__).resolve().parents[2] / "services"
MAKERS = {
    "Measure": "gauge",
    "Gauge": "gauge",
    "Histogram": "histogram",
    "Counter": "counter",
    "GaugeMetricFamily": "gauge",
}
INTRODUCTION = """# Metrics

A service with `--metrics-port` serves these to Prometheus at `/metrics`, together with the process metrics of
Prometheus' client (`process_*`). The figures of a training step (loss, reward, KL, ...) are documented with each
[algorithm](../algorithms.md); they are part of the run's events, and the trainer's metrics writers write them.
"""


def page() -> str:
    """docs/reference/metrics.md."""
    rows = sorted(set(_metrics()))
    return generated(INTRODUCTION + "\n" + table(("metric, kind", "labels", "meaning", "services"), rows))


def _metrics() -> Iterator[tuple[str, ...]]:
    for path in sorted(SERVICES.rglob("*.py")):
        package = path.relative_to(SERVICES).parts[0]
        service = "all" if package == "accord_runtime" else package.removeprefix("accord_")
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in MAKERS:
                continue
            texts = [
                each.value for each in node.args[:2] if isinstance(each, ast.Constant) and isinstance(each.value, str)
            ]
            if len(texts) != 2:
                continue
            labels = next((_strings(each) for each in node.args[2:3]), "")
            labels = labels or next((_strings(each.value) for each in node.keywords if each.arg == "labels"), "")
            yield lines(code(texts[0]), MAKERS[node.func.id]), cell(labels), cell(sentence(texts[1])), service


def _strings(node: ast.expr) -> str:
    if not isinstance(node, ast.Tuple | ast.List):
        return ""
    return ", ".join(f"`{each.value!s}`" for each in node.elts if isinstance(each, ast.Constant))
