"""`python -m services.gateway`"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

import shared.host.start_up  # noqa: F401 (before what takes long to import)
from services.gateway.app import HttpOptions, serving
from services.gateway.http.access import AccessControl
from services.gateway.http.core import OPEN_FILES
from services.gateway.http.watched_file import keep_following
from shared.bus.readiness import WARNINGS
from shared.host.file_limit import raise_file_limit
from shared.host.heap import give_back_large_pieces
from shared.models.catalogue import Catalogue
from shared.process.process import Process, run_process
from shared.process.served import ServedCatalogue

log = logging.getLogger(__name__)


async def main(running: Process) -> None:
    settings = running.settings
    if (allowed := raise_file_limit(OPEN_FILES)) < OPEN_FILES:
        log.warning("open files are limited to %d of %d; see ulimit -Hn", allowed, OPEN_FILES)
    served = await ServedCatalogue(
        running.bus, settings.sources, partial(Catalogue.of, settings), settings.model_settings
    ).begin()
    access = AccessControl.of(settings)
    http = HttpOptions(settings.http_host, settings.http_port, access)
    async with serving(running.bus, served.catalogue, running.metrics, http) as gateway:
        metadata = {"models": " ".join(served.catalogue.cards), "http": gateway.address}
        gateway.served = served

        async def changed() -> None:
            metadata["models"] = " ".join(served.catalogue.cards)
            gateway.serve(served.catalogue)

        served.changed.append(changed)

        async def until_stopped(stop: asyncio.Event, ready: Callable[[], None]) -> None:
            ready()
            await stop.wait()

        await running.serve(
            until_stopped,
            statistics=lambda: {"waiting": gateway.waiting, WARNINGS: access.troubles()},
            metadata=metadata,
            unusable=lambda: served.catalogue.unusable,
            background=[
                lambda: keep_following(access.files),
                gateway.watch_models,
                served.follow,
            ],
        )


if __name__ == "__main__":
    give_back_large_pieces()
    run_process("gateway", main)
