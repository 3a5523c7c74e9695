"""What all handlers share: the bus, the models, and the bound on requests that wait for images."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final, ParamSpec, TypeVar

from aiohttp import web

from services.gateway.http.access import AccessControl
from shared.bus.base import Bus
from shared.bus.discovery import Service, services
from shared.client import Darkroom
from shared.client.job import Job
from shared.errors import DarkroomError, QueueFull
from shared.host.one_thread import OneThread
from shared.jobs.record import JobRecord
from shared.messages import GenerationRequest
from shared.models.catalogue import Catalogue
from shared.models.usable import as_found
from shared.process.served import ServedCatalogue
from shared.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

MAX_REQUESTS: Final = 1024
"""Requests that wait for their images at a time."""
OPEN_FILES: Final = MAX_REQUESTS + 512
"""A connection for each request that waits, others that are refused or idle, and the process's own:
else the kernel would refuse connections before the gateway could refuse requests by name."""
MAX_LARGE_BYTES: Final = 256 * 1024 * 1024
"""Of requests with images that are read and submitted at a time."""
ANSWER_SECONDS: Final = 0.25
"""How long a service may take to show itself."""
WATCH_SECONDS: Final = 2.0
"""Pause between two questions which models can be used."""
CANCEL_SECONDS: Final = 4.0
"""How long the job of a client that disconnected is asked to end."""


class LargeBodies:
    """Memory for requests with images, `bound` bytes of them at a time."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<LargeBodies {self._bytes}/{self._bound} bytes>"

    @contextmanager
    def taken(self, wanted: int) -> Iterator[None]:
        """Room for so many bytes. Raises `QueueFull`."""
        if self._bytes + wanted > self._bound:
            raise QueueFull("the gateway's room for requests with images, in bytes,", self._bound)
        self._bytes += wanted
        try:
            yield
        finally:
            self._bytes -= wanted


class Gateway:
    """State is only what is in flight; any number of gateways may run."""

    def __init__(
        self,
        bus: Bus,
        darkroom: Darkroom,
        catalogue: Catalogue,
        metrics: Metrics,
        tasks: asyncio.TaskGroup,
        max_requests: int = MAX_REQUESTS,
        access: AccessControl | None = None,
    ) -> None:
        self.bus = bus
        self.darkroom = darkroom
        self.catalogue = catalogue
        """Of all models; `watch_models` keeps in it which of them nobody could load."""
        self.served: ServedCatalogue | None = None
        """What operators may change."""
        self.found: Collection[Service] = ()
        """Who answered last; `watch_models` asks."""
        self.metrics = metrics
        self.access = access or AccessControl()
        self.address = ""
        """`host:port` once it listens."""
        self._tasks = tasks
        self._max_requests = max_requests
        self._waiting = 0
        self.large = LargeBodies(MAX_LARGE_BYTES)
        self._validating = OneThread()
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        return f"<Gateway {self._waiting}/{self._max_requests} requests wait for images>"

    @property
    def waiting(self) -> int:
        return self._waiting

    async def apart(self, validate: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `validate` returns, without holding up others; one at a time, for it decodes
        images."""
        return await self._validating.call(validate, *args, **kwargs)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """A place among the waiting requests. Raises `QueueFull`."""
        if self._waiting >= self._max_requests:
            raise QueueFull("the gateway", self._max_requests)
        self._waiting += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._idle.set()

    async def idle(self) -> None:
        """Returns once no request waits."""
        await self._idle.wait()

    @asynccontextmanager
    async def running(
        self, request: GenerationRequest, *, progress: bool = False
    ) -> AsyncIterator[Job]:
        """A submitted job, with `progress` if somebody will read it. A `DarkroomError` inside means
        that it ended or never began; whatever else leaves the block, a client that disconnected
        above all, cancels it."""
        job: Job | None = None
        job_id = request.job_id
        try:
            job = await self.darkroom.submit(request, progress=progress)
            del request  # its images need not wait for the images
            yield job
        except DarkroomError:
            raise
        except BaseException:
            self._tasks.create_task(self._cancel(job_id))
            raise
        finally:
            if job is not None:
                job.close()

    async def watch_models(self) -> None:
        """Ask the services which models they could not load, for as long as this runs."""
        while True:
            with suppress(DarkroomError):  # what was known still holds
                self.found = await services(self.bus, ANSWER_SECONDS)
                self.catalogue = as_found(self.catalogue, self.found)
            await asyncio.sleep(WATCH_SECONDS)

    def serve(self, catalogue: Catalogue) -> None:
        """Models were added or removed."""
        self.catalogue = as_found(catalogue.after(self.catalogue), self.found)

    async def record(self, job_id: str) -> JobRecord | None:
        """Of a running job; None if it cannot be had."""
        try:
            return await self.darkroom.job(job_id)
        except DarkroomError as error:
            log.info("nothing is known of job %s: %s", job_id, error)
            return None

    async def _cancel(self, job_id: str) -> None:
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                reply = await self.darkroom.cancel(job_id)
        except (DarkroomError, TimeoutError) as error:
            log.warning("the abandoned job %s could not be cancelled: %s", job_id, error)
        else:
            log.info("the client of job %s disconnected; the job is %s", job_id, reply.status)


GATEWAY: Final = web.AppKey("GATEWAY", Gateway)
