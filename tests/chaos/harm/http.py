"""HTTP that no client should send: schemathesis on our own OpenAPI document, and broken requests
below anything that such a document could describe.
"""

import asyncio
import random
import re
import sys
import tempfile
from pathlib import Path
from typing import Final

import aiohttp

from shared.bus.discovery import services
from tests.chaos.harm.mutation import odd_bytes
from tests.chaos.trial import Trial
from tests.conftest import HANG_SECONDS

CHECKS: Final = "not_a_server_error"
CONFIGURATION: Final = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503, 504]
"""
"""504 answers a deadline that has passed, which a request may ask for; 503 a service that is gone.
"""
CASES_PER_EXAMPLE: Final = 20
"""Requests that schemathesis makes of our document for each of its `--max-examples`, at least."""
MOST_TOLD: Final = 400
"""Characters of its report that are kept."""
ANSWER_SECONDS: Final = HANG_SECONDS
"""A server that takes longer for anything here hangs."""
AT_ONCE: Final = 8
MAX_ANSWER: Final = 1 << 20
GOOD: Final = (
    b"POST /v1/images/generations HTTP/1.1\r\nHost: darkroom\r\nContent-Type: application/json\r\n"
    b"Content-Length: 51\r\nConnection: close\r\n\r\n"
    b'{"prompt": "a red circle", "num_inference_steps":1}',
    b"GET /v1/jobs/nobody HTTP/1.1\r\nHost: darkroom\r\nConnection: close\r\n\r\n",
    b"GET /v1/images/nobody/0 HTTP/1.1\r\nHost: darkroom\r\nConnection: close\r\n\r\n",
    b"DELETE /v1/jobs/nobody HTTP/1.1\r\nHost: darkroom\r\nConnection: close\r\n\r\n",
    b"POST /v1/images/generations HTTP/1.1\r\nHost: darkroom\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Type: application/json\r\nConnection: close\r\n\r\n5\r\n{\"pro\r\n0\r\n\r\n",
    b"POST /v1/images/generations HTTP/1.1\r\nHost: darkroom\r\nContent-Type: application/json\r\n"
    b"Content-Encoding: gzip\r\nContent-Length: 4\r\nConnection: close\r\n\r\n\x1f\x8b\x08\x00",
)  # fmt: skip


async def fuzz_http(trial: Trial, broken: int, described: int) -> None:
    """`broken` requests that are no requests, and `described` ones or more by schemathesis."""
    [gateway] = [found for found in await services(trial.fleet.bus, 0.5) if found.http]
    before = {child.spec.name: child.pid for child in trial.fleet.children}
    await _broken(trial, gateway.http, broken)
    if described:
        await _schemathesis(trial, gateway.http, described)
    async with aiohttp.ClientSession() as session:
        body = {"prompt": "a red circle", "num_inference_steps": 1}
        url = f"http://{gateway.http}/v1/images/generations"
        async with asyncio.timeout(ANSWER_SECONDS), session.post(url, json=body) as answer:
            if answer.status != 200:
                trial.remarks.append(f"a good request was answered with {answer.status}")
    after = {child.spec.name: child.pid for child in trial.fleet.children}
    trial.remarks += [f"{name} ended" for name, pid in before.items() if after[name] != pid]


# ------------------------------------------------------------------------------------ broken bytes


async def _broken(trial: Trial, address: str, count: int) -> None:
    numbers = iter(range(count))

    async def send() -> None:
        for _ in numbers:
            sent = _broken_request(trial.chance)
            answer = await _answer(address, sent)
            trial.runs += 1
            if answer is None:
                trial.remarks.append(f"no answer to {sent[:80]!r}")
            elif answer.split(b" ", 2)[1:2] == [b"500"]:
                trial.remarks.append(f"500 to {sent[:80]!r}")

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(send())


def _broken_request(chance: random.Random) -> bytes:
    sent = chance.choice(GOOD)
    for _ in range(chance.randint(1, 4)):
        sent = odd_bytes(chance, sent)
    return sent


async def _answer(address: str, sent: bytes) -> bytes | None:
    """What comes back, empty if the server hangs up; None if it neither answers nor hangs up
    although nothing more is to be expected from us."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(sent)
        writer.write_eof()
        async with asyncio.timeout(ANSWER_SECONDS):
            return await reader.read(MAX_ANSWER)
    except ConnectionError:
        return b""
    except TimeoutError:
        return None
    finally:
        writer.close()


# ------------------------------------------------------------------------------------ schemathesis


async def _schemathesis(trial: Trial, address: str, count: int) -> None:
    """Valid and invalid requests for every operation, until at least `count` were made."""
    made, seed = 0, trial.chance.getrandbits(31)
    while made < count:
        some, failures = await _run_of(address, seed + made, (count - made) // CASES_PER_EXAMPLE)
        trial.remarks += failures
        if not some:
            trial.remarks.append("schemathesis made no request")
            break
        made += some
    trial.runs += made
    trial.figures["by schemathesis"] = made


async def _run_of(address: str, seed: int, examples: int) -> tuple[int, list[str]]:
    """How many requests were made, and what was wrong with the answers."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "schemathesis.toml").write_text(CONFIGURATION)
        process = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).with_name("st")), "run"),
            f"http://{address}/openapi.json",
            *("--checks", CHECKS, "--max-examples", str(max(1, examples)), "--seed", str(seed)),
            *("--request-timeout", str(ANSWER_SECONDS), "--no-color", "--continue-on-failure"),
            cwd=directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output = (await process.communicate())[0].decode(errors="replace")
    found = re.search(r"^\s+(\d+) generated", output, re.MULTILINE)
    failures = [] if process.returncode == 0 else [_told(output)]
    return int(found[1]) if found else 0, failures


def _told(output: str) -> str:
    """What schemathesis says about the first failure, or last of all."""
    _, _, failures = output.partition(" FAILURES ")
    return " ".join((failures or output[-MOST_TOLD:]).split())[:MOST_TOLD]
