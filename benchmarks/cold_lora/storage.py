"""`python -m benchmarks.cold_lora.storage DIRECTORY`: serves files over HTTP, no faster than
storage is.

All downloads together get so many bytes a second. A range of a file may be asked for. The address
is printed as the first line.
"""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from aiohttp import web

from benchmarks.harness.processes import child, first_line
from shared.errors import Misconfigured
from shared.residency.rates import Pace

RATE: Final = 100_000_000
"""Bytes per second."""
BLOCK_BYTES: Final = 256 * 1024


def application(directory: Path, rate: float) -> web.Application:
    pace = Pace(rate)

    async def send(request: web.Request) -> web.StreamResponse:
        path = directory / request.match_info["name"]
        if path.parent != directory or not path.is_file():
            raise web.HTTPNotFound
        size, wanted = path.stat().st_size, request.http_range
        part = range(size)[wanted]
        response = web.StreamResponse(status=200 if len(part) == size else 206)
        response.content_length = len(part)
        if response.status == 206:
            last = part.start + len(part) - 1
            response.headers["Content-Range"] = f"bytes {part.start}-{last}/{size}"
        await response.prepare(request)
        with path.open("rb") as file:
            file.seek(part.start)
            left = len(part)
            while block := file.read(min(left, BLOCK_BYTES)):
                await asyncio.sleep(pace.wait(len(block), time.monotonic()))
                await response.write(block)
                left -= len(block)
        return response

    app = web.Application()
    app.add_routes([web.get("/{name}", send)])
    return app


@asynccontextmanager
async def slow_storage(directory: Path, rate: float = RATE) -> AsyncIterator[str]:
    """The address of a process of its own that serves `directory`."""
    module = ("-m", "benchmarks.cold_lora.storage")
    command = (sys.executable, *module, str(directory), "--rate", str(rate))
    async with child(*command, stdout=asyncio.subprocess.PIPE) as process:
        address = await first_line(process)
        if not address:
            raise Misconfigured("the slow storage did not start")
        yield address


async def serve(directory: Path, rate: float) -> None:
    """Until SIGTERM."""
    runner = web.AppRunner(application(directory, rate), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    print(f"http://{host}:{port}", flush=True)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cold_lora.storage", description=__doc__
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rate", type=float, default=RATE, help="bytes per second, of all")
    options = parser.parse_args()
    asyncio.run(serve(options.directory.resolve(), options.rate))


if __name__ == "__main__":
    main()
