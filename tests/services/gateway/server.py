"""A gateway on a free port before the small pipeline, and clients of it."""

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from openai import AsyncOpenAI

from services.gateway.app import HttpOptions, serving
from services.gateway.http.core import Gateway
from shared.bus.memory import MemoryBus
from shared.telemetry.metrics import Metrics
from tests.helpers import factories
from tests.services.gateway.pipeline import Pipeline, pipeline


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error in OpenAI's shape, which must be complete."""
        assert set(self.json) == {"error"}, self.json
        error: dict[str, Any] = self.json["error"]
        assert set(error) - {"predicted_seconds"} == {"message", "type", "param", "code"}, error
        return error


@dataclass(frozen=True, slots=True)
class Server:
    gateway: Gateway
    line: Pipeline
    bus: MemoryBus
    http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://{self.gateway.address}"

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        async with self.http.request(method, self.url + path, **options) as reply:
            return Answer(reply.status, dict(reply.headers), await reply.read())

    async def draw(self, **fields: Any) -> Answer:
        """Ask for images; the prompt need not be given."""
        body = {"prompt": "a large red circle left on white"} | fields
        file = io.BytesIO(json.dumps(body).encode())
        headers = {"Content-Type": "application/json"}
        return await self.ask("POST", "/v1/images/generations", data=file, headers=headers)

    def openai(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0)


@asynccontextmanager
async def server(**options: Any) -> AsyncIterator[Server]:
    """A gateway before a pipeline of its own; `options` are those of `served`."""
    async with (
        pipeline() as (line, bus),
        aiohttp.ClientSession() as http,
        served(line, bus, http, **options) as here,
    ):
        yield here


@asynccontextmanager
async def served(
    line: Pipeline, bus: MemoryBus, http: aiohttp.ClientSession, **options: Any
) -> AsyncIterator[Server]:
    """A gateway that leaves before its pipeline does. `aliases`: of its models."""
    settings = {"grace": 0.2} | options
    catalogue = factories.catalogue().with_aliases(settings.pop("aliases", {}))
    async with serving(bus, catalogue, Metrics("gateway"), HttpOptions(**settings)) as gateway:
        yield Server(gateway, line, bus, http)
