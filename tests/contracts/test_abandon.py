"""A process that cannot go on ends, whatever its threads do."""

import os
import subprocess
import sys
from pathlib import Path

from shared.host.terminate import ABANDONED
from tests.conftest import HANG_SECONDS

HANGS = """
import threading
from shared.host.terminate import terminate
threading.Thread(target=threading.Event().wait).start()
terminate("a thread hangs")
"""

CLOSED = """
import asyncio
from shared.process.process import run_process

async def main(running):
    await running.bus._connection._client.close()  # as when the server sends it away
    await asyncio.Event().wait()

run_process("planner", main)
"""


def ended(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **environment},
        check=False,
    )


def test_a_thread_that_hangs_does_not_keep_a_process_alive() -> None:
    found = ended(HANGS)
    assert found.returncode == ABANDONED
    assert "most recent call first" in found.stderr


def test_a_process_whose_bus_closed_for_good_ends(nats_url: str) -> None:
    found = ended(CLOSED, DARKROOM_NATS_URL=nats_url)
    assert found.returncode == ABANDONED
    assert "it was closed" in found.stderr
