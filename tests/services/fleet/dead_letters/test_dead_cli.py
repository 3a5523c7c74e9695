"""`darkroom dead` as it is typed, against a real server."""

import asyncio
import json
import os
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from services.fleet.cli.app import app
from shared import subjects
from shared.bus.embedded import nats_server
from shared.bus.nats import NatsBus, connect
from shared.bus.topology import TOPOLOGY
from shared.jobs.dead import DeadLetter
from tests.conftest import run
from tests.helpers import factories
from tests.services.fleet.dead_letters import dead
from tests.services.gateway.pipeline import Pipeline


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for all tests here."""
    with asyncio.Runner() as runner:
        server: Any = nats_server(tmp_path_factory.mktemp("nats"))
        yield runner.run(server.__aenter__()).url
        runner.run(server.__aexit__(None, None, None))


@pytest.fixture(autouse=True)
def _no_letters(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("DARKROOM_KEYS", raising=False)

    async def clear(bus: NatsBus) -> None:
        async for subject, _ in bus.listing(subjects.DEAD, subjects.ALL_DEAD):
            await bus.remove(subjects.DEAD, subject)

    on(url, clear)


def on(url: str, work: Any) -> Any:
    """Await `work(bus)`."""

    async def connected() -> Any:
        bus = await connect(url, "test")
        try:
            await bus.ensure(TOPOLOGY)
            return await work(bus)
        finally:
            await bus.close()

    return run(connected())


def dead_letter(url: str, *letters: DeadLetter) -> None:
    def work(bus: NatsBus) -> Coroutine[Any, Any, None]:
        return dead.store(bus, *letters)

    on(url, work)


def darkroom(url: str, *arguments: str, answer: str | None = None) -> Result:
    words = ["dead", *arguments, "--url", url]
    return CliRunner().invoke(app, words, input=answer, env={"COLUMNS": "140", "NO_COLOR": "1"})


def test_without_letters_list_says_so(url: str) -> None:
    result = darkroom(url, "list")
    assert (result.exit_code, result.stdout) == (0, "There are no dead letters.\n")
    assert darkroom(url, "list", "--json").stdout == ""
    assert "no dead letters" in darkroom(url, "drop", "--all").stdout
    assert "no dead letters" in darkroom(url, "retry", "--all").stdout


def test_list_is_a_table_that_cuts_messages_and_never_ids(url: str) -> None:
    long = "x" * 64
    dead_letter(url, dead.poisoned(long), dead.broken("b", at=200.0))
    lines = darkroom(url, "list").stdout.splitlines()
    [old] = [line for line in lines if long in line]
    assert "poisoned" in old
    assert old.rstrip().endswith("…")
    [new] = [line for line in lines if "it broke" in line]
    assert lines.index(new) < lines.index(old)
    assert "the newest 1 of 2" in darkroom(url, "list", "--limit", "1").stdout
    assert "'nobody'" in darkroom(url, "list", "--code", "nobody").stdout


def test_json_is_one_object_per_line(url: str) -> None:
    dead_letter(url, dead.poisoned("a"), dead.broken("b", at=200.0))
    listed = [json.loads(line) for line in darkroom(url, "list", "--json").stdout.splitlines()]
    assert [(line["job_id"], line["kills"]) for line in listed] == [("b", 0), ("a", 2)]
    shown = json.loads(darkroom(url, "show", "a", "--json").stdout)
    assert shown["record"]["nodes"]["denoise-0"]["causes"][0]["message"] == "it broke"


def test_show_tells_a_person_what_happened(url: str) -> None:
    dead_letter(url, dead.poisoned("a"))
    shown = darkroom(url, "show", "a").stdout
    assert "because   poisoned" in shown
    assert "prompt: a large red circle left on white" in shown


@pytest.mark.parametrize("command", ["show", "retry", "drop"])
def test_an_unknown_job_is_named_and_exits_1(url: str, command: str) -> None:
    result = darkroom(url, command, "nobody")
    assert result.exit_code == 1
    assert "'nobody'" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [("retry",), ("drop",), ("drop", "a", "--all"), ("show", "a.b"), ("list", "--limit", "0")],
)
def test_bad_usage_exits_2(url: str, arguments: tuple[str, ...]) -> None:
    assert darkroom(url, *arguments).exit_code == 2


def test_all_letters_are_dropped_only_after_a_yes(url: str) -> None:
    dead_letter(url, dead.poisoned("a"), dead.poisoned("b"))
    refused = darkroom(url, "drop", "--all", answer="n\n")
    assert refused.exit_code == 1
    assert "Forget 2 jobs" in refused.stderr
    assert len(darkroom(url, "list", "--json").stdout.splitlines()) == 2
    assert darkroom(url, "drop", "--all", answer="y\n").exit_code == 0
    assert "no dead letters" in darkroom(url, "list").stdout


def test_yes_can_be_said_beforehand(url: str) -> None:
    dead_letter(url, dead.poisoned("a"))
    assert json.loads(darkroom(url, "drop", "--all", "--yes", "--json").stdout) == {"job_id": "a"}


def test_no_fleet_and_no_address_is_an_error() -> None:
    result = CliRunner().invoke(app, ["dead", "list"])
    assert result.exit_code == 1
    assert "darkroom up" in result.stderr


def test_retry_waits_for_the_pictures_of_all(url: str) -> None:
    dead_letter(url, dead.poisoned("a"), dead.unplanned(b"\xc1", "b"))

    async def planned(bus: NatsBus) -> list[dict[str, object]]:
        line = Pipeline(bus, factories.catalogue())
        async with asyncio.TaskGroup() as group:
            planner = group.create_task(line.take_submissions())
            words = ("dead", "retry", "--all", "--wait", "--json", "--url", url)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "services.fleet",
                *words,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ},
            )
            output, _ = await process.communicate()
            assert process.returncode == 1  # "b" cannot be tried again
            planner.cancel()
        return [json.loads(line) for line in output.splitlines()]

    first, second = on(url, planned)
    assert (first["job_id"], first["new_job_id"], first["standing"]) == ("a", "a-r1", "done")
    assert (second["job_id"], second["standing"]) == ("b", "kept")
    assert [json.loads(darkroom(url, "list", "--json").stdout)["job_id"]] == ["b"]
