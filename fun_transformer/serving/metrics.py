"""What a server did, in the form that Prometheus reads."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]

PREFIX = "fun_transformer"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TEXTS = (1.0, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        by_route, by_model, by_pair = ["route"], ["model"], ["source", "target"]

        def counter(name: str, meaning: str, labels: list[str]) -> Counter:
            return Counter(f"{PREFIX}_{name}", meaning, labels, registry=registry)

        def histogram(name: str, meaning: str, labels: list[str], buckets: tuple[float, ...] = SECONDS) -> Histogram:
            return Histogram(f"{PREFIX}_{name}", meaning, labels, buckets=buckets, registry=registry)

        self._requests = counter("requests", "Requests by route and status", ["route", "status"])
        self._seconds = histogram("request_seconds", "Time of a request", by_route)
        self._texts = counter("texts", "Translated texts", by_pair)
        self._characters = counter("characters", "Characters of translated texts", by_pair)
        self._faults = counter("faults_left", "Translations with a fault that no other search mended", ["fault"])
        self._batch_texts = histogram("batch_texts", "Texts of a batch, or parts of texts", by_model, TEXTS)
        self._batch_seconds = histogram("batch_seconds", "Time of a batch", by_model)
        self._waiting = Gauge(f"{PREFIX}_waiting_texts", "Texts that wait for their turn", by_model, registry=registry)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_texts(self, pair: tuple[str, str], texts: list[str]) -> None:
        """Count texts that were translated."""
        self._texts.labels(*pair).inc(len(texts))
        self._characters.labels(*pair).inc(sum(map(len, texts)))

    def count_faults(self, faults: list[str]) -> None:
        """Count faults that a translation was left with."""
        for fault in faults:
            self._faults.labels(fault).inc()

    def count_batch(self, model: str) -> Callable[[int, float], None]:
        """Return a function that counts a batch of a model, given its texts and seconds."""
        texts, seconds = self._batch_texts.labels(model), self._batch_seconds.labels(model)

        def count(number: int, time: float) -> None:
            texts.observe(number)
            seconds.observe(time)

        return count

    def watch_waiting(self, model: str, count: Callable[[], int]) -> None:
        """Ask for the number of waiting texts whenever the metrics are read."""
        self._waiting.labels(model).set_function(count)

    def read(self) -> bytes:
        """Return all of them."""
        return generate_latest(self.registry)
