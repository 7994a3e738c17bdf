"""What is counted of live streams, in Prometheus' own types. One registry a process, one set of series a stream."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram

from stream.live.states import State

STAGES = ("find", "restore", "write", "total")
_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.2, 0.3, 0.5, 1.0, 2.0)


class Metrics:
    """All series, each with the label `stream`."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        own = ("stream",)
        self.frames_in = Counter("unsmear_frames_in", "Frames decoded from the source.", own, registry=r)
        self.frames_out = Counter("unsmear_frames_out", "Frames of the source that were sent.", own, registry=r)
        self.bridged = Counter("unsmear_frames_bridged", "Frames sent while no picture came.", own, registry=r)
        self.passed_on = Counter(
            "unsmear_frames_passed_on", "Frames sent without restoring.", (*own, "reason"), registry=r
        )
        self.dropped = Counter("unsmear_frames_dropped", "Frames not sent.", (*own, "reason"), registry=r)
        self.faces = Counter("unsmear_faces_restored", "Faces restored, once a frame.", own, registry=r)
        self.damaged = Counter("unsmear_packets_damaged", "Packets that could not be decoded.", own, registry=r)
        self.lost = Counter(
            "unsmear_connections_lost", "Losses of source or sink, by cause.", (*own, "side", "cause"), registry=r
        )
        self.abandoned = Counter("unsmear_readers_abandoned", "Readers left behind because they hung.", own, registry=r)
        self.clock_jumps = Gauge("unsmear_clock_jumps_total", "Times the source's clock began anew.", own, registry=r)
        self.waiting = Gauge("unsmear_frames_waiting", "Frames in a queue.", (*own, "queue"), registry=r)
        self.sink_up = Gauge("unsmear_sink_up", "Whether the sink is open.", own, registry=r)
        self.state = Enum("unsmear_source_state", "State of the source.", own, states=list(State), registry=r)
        self.seconds = Histogram(
            "unsmear_latency_seconds",
            "Of a stage's own work; total: from a frame's decoding until it is sent.",
            (*own, "stage"),
            buckets=_BUCKETS,
            registry=r,
        )

    def value(self, name: str, **labels: str) -> float:
        """The value of one series, 0 where it has not begun."""
        return self.registry.get_sample_value(name, labels) or 0.0

    def total(self, name: str, stream: str) -> float:
        """The sum of a stream's series of that name."""
        return sum(
            sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == name and sample.labels.get("stream") == stream
        )

    def forget(self, stream: str) -> None:
        """A stream was removed: so are its series."""
        for metric in vars(self).values():
            if isinstance(metric, (Counter, Gauge, Histogram, Enum)):
                metric.remove_by_labels({"stream": stream})
