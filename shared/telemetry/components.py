"""Components of a process in its metrics: how each stands, read when somebody asks."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from shared.messages.components import ComponentState


class ComponentStates:
    """A collector of a registry."""

    def __init__(self, read: Callable[[], Iterable[ComponentState]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        held = GaugeMetricFamily(
            "darkroom_component_bytes",
            "Bytes of a component's weights, by how the component stands in the process.",
            labels=("model", "state"),
        )
        for one in self._read():
            held.add_metric((one.name, one.state), one.bytes)
        yield held
