"""A web server on this machine that has LoRAs, and many ways of failing to give them."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from shared.messages import LoraChoice
from shared.models.loras.sources.fetch import Fetcher
from shared.models.loras.sources.hosts import Hosts
from shared.models.loras.sources.store import Store

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Handler = Callable[[web.Request], Coroutine[None, None, web.StreamResponse]]


class LoraServer:
    """`files` by name, under `/plain/NAME` and, with `owner/repo`, as a hub has them. `sent`: bytes
    of bodies that left by each address, `asked`: requests for it, in order."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[web.Request] = []
        self.sent: dict[str, int] = {}
        self.open = asyncio.Event()
        """Until it is set, `/held/NAME` stops halfway."""
        self.open.set()
        self.port = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def hosts(self) -> Hosts:
        return Hosts.parse([self.address], self.address)

    def sha256(self, name: str) -> str:
        return hashlib.sha256(self.files[name]).hexdigest()

    def paths(self) -> list[str]:
        return [request.path for request in self.asked]

    def fetcher(self, folder: Path, *, most: int = 2**30, room: int = 2**30) -> Fetcher:
        return Fetcher(self.hosts, Store(folder, room), most, seconds=20.0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["LoraServer"]:
        app = web.Application()
        routes: dict[str, Handler] = {
            "/plain/{name}": self._plain,
            "/chunked/{name}": self._chunked,
            "/deaf/{name}": self._deaf,
            "/torn/{name}": self._torn,
            "/held/{name}": self._held,
            "/packed/{name}": self._packed,
            "/moved/{name}": self._moved,
            "/away/{name}": self._away,
            "/round/{name}": self._round,
            "/api/models/owner/repo/revision/main": self._revision,
            f"/owner/repo/resolve/{COMMIT}/{{name}}": self._plain,
        }
        for path, handler in routes.items():
            app.router.add_get(path, handler)
        app.middlewares.append(self._note)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()

    @web.middleware
    async def _note(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(request)
        answer: web.StreamResponse = await handler(request)
        return answer

    def _file(self, request: web.Request) -> bytes:
        name = request.match_info["name"]
        if name not in self.files:
            raise web.HTTPNotFound
        return self.files[name]

    async def _plain(self, request: web.Request) -> web.StreamResponse:
        """Knows ranges and ETags."""
        data = self._file(request)
        etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304)
        part = request.http_range
        if "Range" not in request.headers:
            return self._answer(request, data, 200, {"ETag": etag})
        start, stop = part.start or 0, min(part.stop or len(data), len(data))
        told = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
        return self._answer(request, data[start:stop], 206, told)

    def _answer(
        self, request: web.Request, data: bytes, status: int, headers: dict[str, str]
    ) -> web.Response:
        self.sent[request.path] = self.sent.get(request.path, 0) + len(data)
        return web.Response(body=data, status=status, headers=headers)

    async def _deaf(self, request: web.Request) -> web.StreamResponse:
        """Whatever range is asked for, it sends the whole."""
        return await self._streamed(request, self._file(request))

    async def _chunked(self, request: web.Request) -> web.StreamResponse:
        """Without a length."""
        return await self._streamed(request, self._file(request), length=False)

    async def _torn(self, request: web.Request) -> web.StreamResponse:
        data = self._file(request)
        answer = await self._streamed(request, data[: len(data) // 2], more=True)
        assert request.transport is not None
        request.transport.abort()
        return answer

    async def _held(self, request: web.Request) -> web.StreamResponse:
        data = self._file(request)
        answer = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await answer.prepare(request)
        await answer.write(data[: len(data) // 2])
        await self.open.wait()
        await answer.write(data[len(data) // 2 :])
        return answer

    async def _streamed(
        self, request: web.Request, data: bytes, length: bool = True, more: bool = False
    ) -> web.StreamResponse:
        answer = web.StreamResponse()
        if length:
            answer.content_length = len(data) + 1000 * more
        await answer.prepare(request)
        self.sent.setdefault(request.path, 0)
        for at in range(0, len(data), 2**16):
            await answer.write(data[at : at + 2**16])
            self.sent[request.path] += len(data[at : at + 2**16])
        return answer

    async def _packed(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=self._file(request), headers={"Content-Encoding": "br"})

    async def _moved(self, request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(f"/plain/{request.match_info['name']}")

    async def _away(self, request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(f"http://localhost:{self.port}/plain/{request.match_info['name']}")

    async def _round(self, request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(request.path)

    async def _revision(self, request: web.Request) -> web.StreamResponse:
        names = [{"rfilename": name} for name in (*self.files, "README.md")]
        return web.json_response({"sha": COMMIT, "siblings": names, "id": "owner/repo"})


def fetch_and_hang(address: str, folder: str) -> None:
    """Fetch `held/neon` from there for `folder`, as a process whose imports are only those of this
    module."""

    async def hang() -> None:
        fetcher = Fetcher(Hosts.parse([address], address), Store(Path(folder), 2**30), 2**30, 20.0)
        async with fetcher.file(LoraChoice(url=f"{address}/held/neon.safetensors")):
            pass

    asyncio.run(hang())
