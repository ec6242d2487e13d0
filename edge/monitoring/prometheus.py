"""The metrics page for Prometheus (the extra ``fer-edge[metrics]``).

Its text is made for each request, in a thread of its own.
"""

import errno
import threading
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge.errors import SettingsError
from edge.monitoring.counters import RunCounters
from edge.monitoring.page_server import PageServer
from edge.mqtt.figures import DeliveryFigures
from edge.settings import MetricsSettings
from edge.system import hardware

PREFIX: Final = "fer_edge"

_IN_USE: Final = ". Give another metrics.port; or, by hand beside the service whose settings these are, --no-metrics"


class PrometheusExporter(Collector):
    """Serves the page. ``delivery`` gives the figures of a run that publishes; None for one that does not.

    Without ``counters.individuals`` it has nothing that tells whether somebody is there, such as the time of the CPU.

    Raises SettingsError when it cannot listen on the configured address and port.
    """

    def __init__(
        self, settings: MetricsSettings, counters: RunCounters, delivery: Callable[[], DeliveryFigures] | None = None
    ) -> None:
        self._counters = counters
        self._delivery = delivery
        self._process = ProcessCollector(namespace=PREFIX, registry=None)
        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._server = PageServer(settings.address, settings.port)
        except OSError as error:
            where = f"{settings.address}:{settings.port}"
            hint = _IN_USE if error.errno == errno.EADDRINUSE else ""
            raise SettingsError(f"metrics: cannot listen at {where}: {error.strerror or error}{hint}") from error
        self._server.set_app(make_wsgi_app(registry))
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now; called in the thread of a request."""
        counters = self._counters
        yield _counter("frames", "Frames that went through the whole pipeline", counters.frames)
        yield _counter(
            "frames_dropped", "Frames that were replaced by newer ones before they were wanted", counters.frames_dropped
        )
        stages = CounterMetricFamily(f"{PREFIX}_stage_seconds", "Time spent in each stage", labels=("stage",))
        for stage, seconds in counters.stage_seconds.items():
            stages.add_metric((stage,), seconds)
        yield stages
        events = CounterMetricFamily(f"{PREFIX}_events", "Events reported", labels=("kind", "expression"))
        for labels, count in dict(counters.events).items():
            events.add_metric(labels, count)
        yield events
        if counters.individuals:
            yield _gauge("faces", "Faces in view", counters.faces)
        yield from _if_known("paused", "1 while the camera is closed on purpose", counters.is_paused)
        yield _gauge("too_dark", "1 while it is too dark to find faces", counters.is_too_dark)
        yield from _if_known("last_frame_timestamp_seconds", "When the last frame was seen", counters.last_frame)
        yield _gauge("failed_starts", "Starts before this one, in a row, that did not last", counters.failed_starts)
        about = "1 when the chosen model runs and gives its golden outputs"
        yield from _if_known("model_ok", about, counters.model_ok)
        model = counters.model
        info = GaugeMetricFamily(f"{PREFIX}_model_info", "The model that runs", labels=tuple(model))
        if model:
            info.add_metric(tuple(model.values()), 1)
        yield info
        accelerator = GaugeMetricFamily(f"{PREFIX}_accelerator_info", "What runs the model", labels=("accelerator",))
        if counters.accelerator:
            accelerator.add_metric((counters.accelerator,), 1)
        yield accelerator
        for metric in self._process.collect():
            if counters.individuals or metric.name != f"{PREFIX}_process_cpu_seconds":  # a face takes time to classify
                yield metric
        yield from _board()
        if self._delivery:
            yield from _delivery(self._delivery())


def _board() -> Iterator[Metric]:
    yield from _if_known("temperature_celsius", "Of the processor", hardware.temperature())
    about = "1 while the firmware limits the board because of power or heat"
    throttled = hardware.throttled_now()
    yield from _if_known("throttled", about, None if throttled is None else bool(throttled))
    if (written := hardware.bytes_written()) is not None:
        yield _counter("written_bytes", "What this process made the kernel send to disks", written)


def _delivery(delivery: DeliveryFigures) -> Iterator[Metric]:
    figures = delivery.outbox
    yield _gauge("outbox_waiting", "Events that the broker has not acknowledged", figures.waiting)
    yield _gauge("outbox_durable", "1 while events reach the disk", figures.durable)
    yield _counter("outbox_dropped", "Events dropped because too many waited, for ever", figures.dropped)
    yield _counter("outbox_damaged", "How often its file was damaged and set aside, for ever", figures.damaged)
    yield _counter("outbox_lost", "Committed events lost because its file was damaged, for ever", figures.lost)
    yield _counter(
        "outbox_failed", "Attempts that the disk refused: full, read-only or broken, for ever", figures.failed
    )
    yield _counter("events_refused", "Events that the broker refused", delivery.refused)
    yield _gauge("fault_code", "Code of the retained fault, 0 when there is none", delivery.fault or 0)


def _if_known(name: str, about: str, value: float | None) -> Iterator[Metric]:
    """A gauge; none for None, so that no alarm takes what is not known yet for a fault."""
    if value is not None:
        yield _gauge(name, about, value)


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", about, value)


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(f"{PREFIX}_{name}", about, value)
