"""Metrics for Prometheus: calls, process, and the measures of each service."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Protocol, runtime_checkable

import grpc
from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from accord.errors import Unavailable

# Seconds, from a status query to a step that takes an hour.
BUCKETS = (0.005, 0.02, 0.1, 0.5, 1, 5, 20, 60, 300, 1200, 3600)


@dataclass(frozen=True)
class Measure:
    """One figure. `name`: accord_<service>_<what>, with its unit."""

    name: str
    help: str
    value: float


@runtime_checkable
class Measured(Protocol):
    """Implemented by services with their own figures."""

    def measures(self) -> Iterable[Measure]:
        """The current figures. Called in a thread at every scrape."""
        ...


@dataclass
class Call:
    """An active call; `code` is the status that it ends with."""

    code: grpc.StatusCode = field(default=grpc.StatusCode.OK)


class Metrics:
    """The figures of one server. A process may have several."""

    def __init__(self, measures: Callable[[], Iterable[Measure]]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_Own(measures))
        self._seconds = Histogram(
            "accord_call_seconds",
            "Duration of calls; streams are measured to their end.",
            ("method", "code"),
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._in_work = Gauge("accord_calls_in_work", "Calls in progress.", ("method",), registry=self._registry)
        release = Gauge(
            "accord_release_info", "Always 1; the label has the release.", ("version",), registry=self._registry
        )
        release.labels(version("accord-rlhf")).set(1)

    @contextmanager
    def call(self, method: str) -> Iterator[Call]:
        """Measures a block as a call of `method`, /package.Service/Method."""
        name, call, started = method.removeprefix("/"), Call(), time.monotonic()
        in_work = self._in_work.labels(name)
        in_work.inc()
        try:
            yield call
        except BaseException:
            if call.code is grpc.StatusCode.OK:
                call.code = grpc.StatusCode.CANCELLED
            raise
        finally:
            in_work.dec()
            self._seconds.labels(name, call.code.name).observe(time.monotonic() - started)

    def serve(self, host: str, port: int) -> MetricsServer:
        """GET /metrics in Prometheus' text format, at http://host:port. Unavailable, PORT_IN_USE."""
        try:
            server, thread = start_http_server(port, host, self._registry)
        except OSError as error:
            raise Unavailable(
                f"cannot serve metrics at {host}:{port}: {error}. Choose another --metrics-port", reason="PORT_IN_USE"
            ) from error
        return MetricsServer(server.server_port, server.shutdown, server.server_close, thread.join)


@dataclass(frozen=True)
class MetricsServer:
    """A running endpoint."""

    port: int
    _shutdown: Callable[[], None]
    _close: Callable[[], None]
    _join: Callable[[float], None]

    def stop(self) -> None:
        """Stops the endpoint; active scrapes are answered first."""
        self._shutdown()
        self._close()
        self._join(5)


class _Own(Collector):
    def __init__(self, measures: Callable[[], Iterable[Measure]]) -> None:
        self._measures = measures

    def collect(self) -> Iterator[Metric]:
        for measure in self._measures():
            yield GaugeMetricFamily(measure.name, measure.help, measure.value)
