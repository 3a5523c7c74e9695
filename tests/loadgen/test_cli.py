"""`python -m loadgen` as a process of its own, against a gateway with a small pipeline."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from loadgen.report.statistics.model import Report
from services.fleet.cli.app import app
from shared.errors import QueueFull
from shared.host.command_exits import BAD_USAGE, FAILED, INTERRUPTED
from tests.conftest import run
from tests.services.gateway.server import Server, server

QUICK = ("--steps", "2", "--arrivals", "constant", "--rate", "10", "--duration", "1")


@asynccontextmanager
async def loadgen(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "loadgen", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(here: Server, *arguments: str) -> tuple[int | None, str, str]:
    """Exit code, stdout and stderr of a run against the gateway."""
    async with loadgen("--url", here.url, *arguments) as process:
        out, errors = await process.communicate()
        return process.returncode, out.decode(), errors.decode()


def test_a_run_ends_with_a_table_a_json_report_and_a_page(tmp_path: Path) -> None:
    async def scenario() -> tuple[int | None, str, str]:
        async with server() as here:
            files = ("--json", str(tmp_path / "r.json"), "--html", str(tmp_path / "r.html"))
            wanted = ("--slo", "2x", "--masks", "face_swap", "--tenant", "ann", *files)
            return await ended(here, *QUICK, *wanted)

    code, out, errors = run(scenario())
    assert code == 0, errors
    assert "not sent, for this target does not take them: mask_ratio" in errors
    report = msgspec.json.decode((tmp_path / "r.json").read_bytes(), type=Report)
    assert (report.overall.requests, report.overall.done) == (10, 10)
    assert list(report.by_tenant) == ["ann"]
    assert report.overall.attainment is not None
    assert "throughput" in out
    assert (tmp_path / "r.html").read_text().lower().startswith("<!doctype html>")


def test_ctrl_c_ends_a_run_with_the_report_so_far() -> None:
    async def scenario() -> tuple[int | None, Report]:
        async with server() as here:
            options = ("--steps", "2", "--rate", "20", "--duration", "600", "--json", "-")
            async with loadgen("--url", here.url, *options) as process:
                assert process.stderr is not None
                while b" done" not in await process.stderr.readline():
                    pass  # a line every few seconds says how far it is
                process.send_signal(signal.SIGINT)
                out, _ = await process.communicate()
                return process.returncode, msgspec.json.decode(out, type=Report)

    code, report = run(scenario())
    assert code == INTERRUPTED
    assert report.about["ended"] == "early"
    assert report.overall.done > 0
    assert report.seconds < 600


def test_the_highest_rate_is_searched_and_told_with_its_confidence() -> None:
    async def scenario() -> tuple[int | None, str, str]:
        async with server(max_requests=2) as here:
            options = ("--steps", "2", "--duration", "0.5", "--precision", "1", "--json", "-")
            return await ended(here, *options, "--find-rate", "--rate", "20", "--slo", "10")

    code, out, errors = run(scenario())
    assert code == 0, errors
    found = json.loads(out)["found"]
    # How much the server stands is the machine's matter: what is found is what the trials say.
    kept = [level["rate"] for level in found["levels"] if level["share"] >= 0.9]
    assert found["rate"] == max(kept)
    assert found["high"] is None or found["high"] > found["low"]
    assert {"rate", "met", "of"} <= set(found["trials"][0])
    assert f"{found['rate']:.3f} requests/s keep 90% in time" in errors


def test_a_server_that_refuses_the_first_request_is_not_loaded() -> None:
    async def scenario() -> tuple[int | None, str, str]:
        async with server() as here:
            here.line.refusal = QueueFull("jobs", 1)
            return await ended(here, *QUICK)

    code, _, errors = run(scenario())
    assert code == FAILED
    assert "sent alone ended as rejected: queue_full" in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--rate", "fast"), "--rate: 'fast' is not allowed"),
        (("--slo", "soon"), "slo: 'soon' is not allowed"),
        (("--find-rate", "--users", "3"), "--users: 3 is not allowed"),
        (("--find-rate", "--rate", "1,2"), "--rate: '1,2' is not allowed"),
        (("--find-rate",), "slo: 'none' is not allowed"),
        (("--find-rate", "--slo", "2x", "--arrivals", "burst"), "arrivals: 'burst'"),
        (("--json", "/nowhere/at/all.json"), "a file in a directory you may write to"),
        (("--class", "standard,fast"), 'allowed: "interactive", "standard" or "batch"'),
        (("--target", "grpc"), "--target: 'grpc' is not allowed"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_sent(
    arguments: tuple[str, ...], said: str
) -> None:
    result = CliRunner().invoke(app, ["load", "--url", "http://127.0.0.1:9", *arguments])
    assert result.exit_code == BAD_USAGE
    assert said in " ".join(result.stderr.split())
