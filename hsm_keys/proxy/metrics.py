"""What Prometheus is told, and `hsm-keys proxy status` too."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

_SIGNING_S: Final = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2)
_UPSTREAM_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5, 30)


class Metrics:
    """Counters and histograms of one proxy."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.verdicts = Counter("hsm_keys_proxy_verdicts", "Decisions", ["verdict", "rule"], registry=registry)
        self.signing = Histogram(
            "hsm_keys_proxy_signing_seconds", "From asking to headers", buckets=_SIGNING_S, registry=registry
        )
        self.queue = Gauge("hsm_keys_proxy_signing_queue", "Requests that wait for a signature", registry=registry)
        self.upstream = Histogram(
            "hsm_keys_proxy_upstream_seconds",
            "From sending to Kalshi's status",
            ["status"],
            buckets=_UPSTREAM_S,
            registry=registry,
        )
        self.presigned = Counter(
            "hsm_keys_proxy_presign", "Headers that were in hand, or not", ["outcome"], registry=registry
        )
        self.sessions = Gauge("hsm_keys_proxy_websockets", "WebSocket sessions that are open", registry=registry)
        self.frozen = Gauge("hsm_keys_proxy_frozen", "1 while signing is frozen", registry=registry)
        self.healthy = Gauge("hsm_keys_proxy_store_healthy", "1 if the last signature could be made", registry=registry)

    def text(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self.registry)

    def totals(self) -> dict[str, int]:
        """Return how many decisions there were, by verdict."""
        totals = {"allowed": 0, "denied": 0}
        for metric in self.verdicts.collect():
            for sample in metric.samples:
                if sample.name.endswith("_total"):
                    totals[sample.labels["verdict"]] += int(sample.value)
        return totals
