"""The metrics for Prometheus and for `hsm-keys proxy status`."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from math import isnan, nan
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client.samples import Sample

__all__ = ["Metrics"]

_SIGNING_S: Final = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2)
_UPSTREAM_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5, 30)


class Metrics:
    """Counters and histograms of one proxy.

    Attributes:
        verdict: Gives the counter of a verdict and a rule; kept, as the library looks for it under a lock.
        answered: Gives the histogram of a status of Kalshi.
        drawn: Gives the counter of headers that were in hand ("hit"), or not ("miss").
        allowed: How many decisions of the verdict and the rule "allowed" aren't in ``verdicts`` yet: they are added
            when somebody asks, as a counter of the library takes as long as judging a route does.
        hits: The same of headers that were in hand.
        waiting: How many requests wait for a signature.
        is_healthy: Whether the last signature could be made.
    """

    def __init__(self) -> None:
        self.allowed = self.hits = self.waiting = 0
        self.is_healthy = True  # the key was found in it
        self.registry = CollectorRegistry()
        registry = self.registry
        self.verdicts = Counter("hsm_keys_proxy_verdicts", "Decisions", ["verdict", "rule"], registry=registry)
        self.signing = Histogram(
            "hsm_keys_proxy_signing_seconds", "From asking to headers", buckets=_SIGNING_S, registry=registry
        )
        queue = Gauge("hsm_keys_proxy_signing_queue", "Requests that wait for a signature", registry=registry)
        queue.set_function(lambda: self.waiting)
        self.upstream = Histogram(
            "hsm_keys_proxy_upstream_seconds",
            "From sending to Kalshi's status; none if no answer came",
            ["status"],
            buckets=_UPSTREAM_S,
            registry=registry,
        )
        self.presigned = Counter(
            "hsm_keys_proxy_presign", "Headers that were ready, or not", ["outcome"], registry=registry
        )
        self.sessions = Gauge("hsm_keys_proxy_websockets", "WebSocket sessions that are open", registry=registry)
        self.frozen = Gauge("hsm_keys_proxy_frozen", "1 while signing is frozen", registry=registry)
        healthy = Gauge("hsm_keys_proxy_store_healthy", "0 if the last signature couldn't be made", registry=registry)
        healthy.set_function(lambda: self.is_healthy)
        self.attestation = Gauge(
            "hsm_keys_proxy_region_expiration_timestamp_seconds",
            "When the account's location attestation ends; NaN while unknown",
            registry=registry,
        )
        self.attestation.set(nan)
        self.from_kalshi = Gauge(
            "hsm_keys_proxy_numbers_from_kalshi",
            "1 if Kalshi has said what calls cost, and what the account's limits are",
            ["numbers"],
            registry=registry,
        )
        for numbers in ("costs", "limits"):
            self.from_kalshi.labels(numbers).set(0)
        self.left = Gauge(
            "hsm_keys_proxy_cap_left_dollars",
            "What is left of the caps on money; client all is what all share",
            ["client", "cap"],
            registry=registry,
        )
        self.silences = Counter(
            "hsm_keys_proxy_silences",
            "Times that a silent client's orders were cancelled",
            ["client"],
            registry=registry,
        )
        self.to_cancel = Gauge(
            "hsm_keys_proxy_silence_orders",
            "Orders of silent clients that aren't known to be over",
            ["client"],
            registry=registry,
        )
        self.verdict = cache(self.verdicts.labels)
        self.answered = cache(self.upstream.labels)
        self.drawn = cache(self.presigned.labels)

    def tell_left(self, left: Iterable[tuple[str, str, float]]) -> None:
        """Show what is left of the caps (client, cap, dollars), and of no other ones any more."""
        self.left.clear()
        for client, cap, amount in left:
            self.left.labels(client, cap).set(amount)

    def tell_to_cancel(self, silence: Mapping[str, Mapping[str, float]]) -> None:
        """Show of each client how many orders are still to be cancelled for its silence."""
        self.to_cancel.clear()
        for client, said in silence.items():
            self.to_cancel.labels(client).set(said["to_cancel"])

    def text(self) -> bytes:
        """Return everything in Prometheus's text format."""
        self._add_up()
        return generate_latest(self.registry)

    def summary(self) -> dict[str, Any]:
        """Return all of it as a person reads it: counts of decisions, times in milliseconds."""
        self._add_up()
        summary: dict[str, Any] = {"allowed": 0, "denied": 0, "denied_by": {}}
        for sample in _samples(self.verdicts, "_total"):
            verdict, rule = sample.labels["verdict"], sample.labels["rule"]
            summary[verdict] += int(sample.value)
            if verdict == "denied":
                summary["denied_by"][rule] = int(sample.value)
        statuses = sorted({sample.labels["status"] for sample in _samples(self.upstream, "_count")})
        return {
            **summary,
            "store_healthy": self.is_healthy,
            "signing": _times(self.signing),
            "signing_queue": self.waiting,
            "upstream": {status: _times(self.upstream, status=status) for status in statuses},
            "presign": {sample.labels["outcome"]: int(sample.value) for sample in _samples(self.presigned, "_total")},
            "websockets": int(_value(self.sessions)),
            "attested_until": _moment(_value(self.attestation)),
        }

    def _add_up(self) -> None:
        allowed, self.allowed = self.allowed, 0
        hits, self.hits = self.hits, 0
        if allowed:
            self.verdict("allowed", "allowed").inc(allowed)
        if hits:
            self.drawn("hit").inc(hits)


def _moment(seconds: float) -> str | None:
    """Return a Unix time as people read it; None of one that isn't known."""
    return None if isnan(seconds) else datetime.fromtimestamp(seconds, UTC).isoformat()


def _samples(metric: Counter | Gauge | Histogram, suffix: str) -> Iterator[Sample]:
    return (sample for family in metric.collect() for sample in family.samples if sample.name.endswith(suffix))


def _value(gauge: Gauge) -> float:
    return next(_samples(gauge, "")).value


def _times(histogram: Histogram, **labels: str) -> dict[str, float | int | None]:
    """Return how many there were, and the milliseconds of half and of 99 % of them, estimated as Prometheus does."""
    buckets = [
        (float(sample.labels["le"]), sample.value)
        for sample in _samples(histogram, "_bucket")
        if labels.items() <= sample.labels.items()
    ]
    count = buckets[-1][1]
    return {"count": int(count), "p50_ms": _quantile(buckets, 0.5 * count), "p99_ms": _quantile(buckets, 0.99 * count)}


def _quantile(buckets: list[tuple[float, float]], rank: float) -> float | None:
    """Return where in cumulative buckets of seconds a rank lies, in milliseconds; at most the last finite bound."""
    below, fewer = 0.0, 0.0
    for bound, count in buckets:
        if count >= rank > 0:
            share = (rank - fewer) / (count - fewer)
            return round(1000 * (below if bound == float("inf") else below + (bound - below) * share), 3)
        below, fewer = bound, count
    return None
