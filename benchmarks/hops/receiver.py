"""`python -m benchmarks.hops.receiver URL ARENAS`: the other process of `benchmarks.hops.handles`.

On `HANDLES` a message is a handle, whose bytes are read from its arena with all checks. On `INLINE`
messages are pieces of a tensor; the last one wants a reply. Either way the reply says how many
bytes are here now.
"""

import asyncio
import sys
from pathlib import Path
from typing import Final

import uvloop

from shared.bus.base import Bus, Message
from shared.bus.nats import connect
from shared.messages import decode
from shared.messages.handle import TensorHandle
from shared.tensors.reader import ArenaReader

HANDLES: Final = "benchmark.handles"
INLINE: Final = "benchmark.inline"


async def main(url: str, arenas: Path) -> None:
    """Until it is killed."""
    bus = await connect(url, "benchmark-receiver")
    async with asyncio.TaskGroup() as group:
        group.create_task(_receive_handles(bus, ArenaReader(arenas)))
        group.create_task(_receive_inline(bus))


async def _receive_handles(bus: Bus, reader: ArenaReader) -> None:
    async with bus.subscribe(HANDLES) as messages:
        async for message in messages:
            await _answer(bus, message, len(reader.read(decode(message.data, TensorHandle))))


async def _receive_inline(bus: Bus) -> None:
    pieces: list[bytes] = []
    async with bus.subscribe(INLINE) as messages:
        async for message in messages:
            pieces.append(message.data)
            if message.reply:
                await _answer(bus, message, len(b"".join(pieces)))
                pieces.clear()


async def _answer(bus: Bus, message: Message, nbytes: int) -> None:
    await bus.publish(message.reply, str(nbytes).encode())


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], Path(sys.argv[2])))
