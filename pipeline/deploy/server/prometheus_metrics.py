"""What `/metrics` counts, in Prometheus' text format; no label holds anything of a scan."""

from __future__ import annotations

from contextlib import AbstractContextManager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pipeline.deploy.server.supervisor import Supervisor

_SECONDS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)


class ServiceMetrics:
    """Counters of one service, in a registry of their own."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter("segpipe_requests", "Answers of /predict", ["status"], registry=self.registry)
        self._seconds = Histogram(
            "segpipe_case_seconds", "Seconds per case, waiting included", buckets=_SECONDS, registry=self.registry
        )
        for name, what, value in (
            ("segpipe_queue_cases", "Cases that run, wait or are uploaded", lambda: supervisor.admitted),
            ("segpipe_worker_ready", "Whether the worker can take a case", lambda: float(supervisor.ready)),
            ("segpipe_worker_starts", "Workers started so far", lambda: supervisor.started),
            ("segpipe_worker_peak_memory_gib", "Most memory of a case", lambda: supervisor.peak_memory_gib),
        ):
            Gauge(name, what, registry=self.registry).set_function(value)

    def count(self, status: int) -> None:
        """Counts one answer."""
        self._requests.labels(str(status)).inc()

    def case(self) -> AbstractContextManager[None]:
        """Times one case."""
        return self._seconds.time()

    def text(self) -> str:
        """The figures as Prometheus reads them."""
        return generate_latest(self.registry).decode()
