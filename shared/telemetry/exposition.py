"""The whole fleet in one scrape: every process answers a request on `dr.v1.metrics` with its
exposition text, and whoever is scraped merges the answers.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from shared import subjects
from shared.bus.base import Bus
from shared.errors import DarkroomError
from shared.telemetry.metrics import Metrics, as_text

CONTENT_TYPE: Final[str] = CONTENT_TYPE_PLAIN_0_0_4
"""Of what `gather_metrics` and `Metrics.render` return."""

GATHER_SECONDS: Final = 0.5
"""How long a scrape listens for answers: far above a round trip, far below a scraper's patience."""

_log = logging.getLogger(__name__)


async def serve_metrics(bus: Bus, metrics: Metrics, instance: str) -> None:
    """Answer every request for metrics until cancelled. `instance` must be unique in the fleet."""
    async with bus.subscribe(subjects.ALL_METRICS) as requests:
        async for request in requests:
            if not request.reply:
                continue
            try:
                await bus.publish(request.reply, metrics.render(instance=instance))
            except DarkroomError as error:  # a lost answer must not end the process's real work
                _log.warning("metrics were not sent: %s", error)


async def gather_metrics(bus: Bus, timeout: float = GATHER_SECONDS) -> bytes:
    """Exposition text of every process that answers; takes `timeout` seconds in any case."""
    answers = await bus.gather(subjects.ALL_METRICS, b"", timeout)
    # Parsing takes several milliseconds per process; the event loop has better things to do.
    return await asyncio.to_thread(merge, [answer.data for answer in answers])


def merge(texts: Iterable[bytes]) -> bytes:
    """One text with every family once. Samples differ in `service` and `instance`, so none collide.

    A text that cannot be parsed is left out, and so are samples whose family has another type than
    in an earlier text (two versions of a service during an update); both are logged."""
    merged: dict[str, Metric] = {}
    for text in texts:
        for family in _parse(text):
            known = merged.setdefault(family.name, family)
            if known is family:
                continue
            if known.type == family.type:
                known.samples.extend(family.samples)
            else:
                _log.warning("%s is a %s, not a %s", family.name, known.type, family.type)
    return as_text(merged.values())


def _parse(text: bytes) -> list[Metric]:
    try:
        return list(text_string_to_metric_families(text.decode()))
    except ValueError as error:
        _log.warning("an answer with metrics could not be read: %s", error)
        return []
