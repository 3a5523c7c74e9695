"""`python -m benchmarks.baselines serial|request_batching`: a server until SIGTERM or Ctrl-C.

(`tune` finds the window and the largest batch that suit request batching; see `tuning.py`.)

Prints its address once it is warm and listens, and on the same line how it uses the machine: what
is not said is tried on the spot, and the fastest kept."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import uvloop
from aiohttp import web

from benchmarks.baselines import tune
from benchmarks.baselines.app import make_app
from benchmarks.baselines.batching import Policy
from benchmarks.baselines.drawing import drawing
from benchmarks.baselines.pipeline import LAYOUTS, Setup
from benchmarks.baselines.warm import warm_pipeline
from shared.models.catalogue import Catalogue
from shared.shipped import DEFAULT_MODEL

POLICIES: Final = {
    "serial": Policy(max_batch=1, window=0.0),
    "request_batching": Policy(max_batch=8, window=0.005),
}
GRACE_SECONDS: Final = 1.0
"""How long requests may take to finish when it is told to end."""


@dataclass(frozen=True, slots=True)
class Options:
    model: str
    host: str
    port: int
    policy: Policy
    setups: tuple[Setup, ...]
    """To choose from."""
    eager: bool = False


def parse(arguments: Sequence[str] | None = None) -> Options:
    """The options in `arguments`, or on the command line. Exits if they are wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baselines", description=__doc__)
    parser.add_argument("kind", choices=sorted(POLICIES))
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a diffusers directory or a hub id")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--threads", type=int, help="default: whatever is fastest")
    parser.add_argument("--layout", choices=LAYOUTS, help="default: whatever is faster")
    parser.add_argument("--window", type=float, help="seconds; request_batching only")
    parser.add_argument("--max-batch", type=int, help="images; request_batching only")
    parser.add_argument("--eager", action="store_true", help="run the UNet as diffusers does")
    found = parser.parse_args(arguments)
    policy = POLICIES[found.kind]
    if found.kind == "serial" and (found.window, found.max_batch) != (None, None):
        parser.error("serial has no --window and no --max-batch")
    max_batch = policy.max_batch if found.max_batch is None else found.max_batch
    window = policy.window if found.window is None else found.window
    try:
        policy = Policy(max_batch, window)
    except ValueError as error:
        parser.error(str(error))
    threads = (
        range(1, len(os.sched_getaffinity(0)) + 1) if found.threads is None else [found.threads]
    )
    layouts = LAYOUTS if found.layout is None else [found.layout]
    setups = tuple(Setup(count, layout) for count in threads for layout in layouts)
    return Options(found.model, found.host, found.port, policy, setups, found.eager)


async def main(options: Options) -> None:
    # A line for every request that came too late would be a load of its own.
    logging.getLogger("services.gateway.replies.middleware").setLevel(logging.ERROR)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(options) as (address, setup):
        print(f"http://{address} {setup}", flush=True)
        await stop.wait()


@asynccontextmanager
async def serving(options: Options) -> AsyncIterator[tuple[str, Setup]]:
    """Load, warm up, and listen at the address given (`host:port`)."""
    catalogue = Catalogue.load([options.model])
    with ThreadPoolExecutor(1, thread_name_prefix="pipeline") as thread:
        loop = asyncio.get_running_loop()
        pipeline = await loop.run_in_executor(
            thread,
            warm_pipeline,
            options.model,
            options.setups,
            options.policy,
            catalogue,
            not options.eager,
        )
        async with drawing(pipeline.draw, [thread], options.policy) as queue:
            app = make_app(queue, catalogue)
            runner = web.AppRunner(
                app, access_log=None, handler_cancellation=True, shutdown_timeout=GRACE_SECONDS
            )
            await runner.setup()
            try:
                await web.TCPSite(runner, options.host, options.port).start()
                host, port = runner.addresses[0][:2]
                yield f"{host}:{port}", pipeline.setup
            finally:
                await runner.cleanup()


if __name__ == "__main__":
    if sys.argv[1:2] == ["tune"]:
        uvloop.run(tune.main(tune.parse(sys.argv[2:])))
    else:
        uvloop.run(main(parse()))
