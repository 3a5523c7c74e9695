"""Follows a page of the documentation as a reader does: programs and commands in their order."""

import base64
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from pocket.captions import parse
from pocket.verify import read as read_scene
from pocket.verify import score
from services.fleet.cli.app import app
from shared.client.fleet_state import FleetState, read
from tests.conftest import eventually, run

ROOT = Path(__file__).parents[3]
SHELL = ("sh", "bash")
COMMANDS = ("darkroom", "python", "curl", "locust", "make", "docker", "nats")
START = "darkroom up"
LONGEST = 600


@dataclass(frozen=True)
class Step:
    """One command of a page, or one program."""

    kind: Literal["command", "program"]
    text: str
    under: str = ""
    """The heading of the section that it stands in."""

    @property
    def command(self) -> str:
        """A command on one line, without the comment behind it."""
        return shlex.join(shlex.split(self.text.replace("\\\n", " "), comments=True))

    @property
    def file(self) -> str:
        """What a program is to be saved as, if its first line says so."""
        named = re.match(r"# (\w+\.py): ", self.text)
        return named[1] if named else ""


def steps(page: Path) -> list[Step]:
    """Everything in fenced blocks of `page` that is marked as a shell's or Python's. Nothing else
    may look like a command."""
    found: list[Step] = []
    text = page.read_text()
    fence = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    for part in fence.finditer(text):
        language, block = part.groups()
        headings = re.findall(r"^#+ (.*)$", fence.sub("", text[: part.start()]), re.MULTILINE)
        under = headings[-1] if headings else ""
        if language in SHELL:
            found += [Step("command", line, under) for line in _command_lines(block)]
        elif language == "python":
            found.append(Step("program", block, under))
        else:
            _refuse_commands(page, block)
    _refuse_commands(page, "\n".join(re.findall(r"^    .*$", fence.sub("", text), re.M)))
    return found


def _command_lines(block: str) -> list[str]:
    """One entry for each command; a trailing backslash, or an open quote, continues on the next."""
    found, begun = [], ""
    for line in block.splitlines():
        begun += line + "\n"
        if not line.endswith("\\") and _is_whole(begun):
            found.append(begun.strip())
            begun = ""
    assert not begun, f"no end of a command: {begun!r}"
    return [line for line in found if line and not line.startswith("#")]


def _is_whole(text: str) -> bool:
    return subprocess.run(["bash", "-n", "-c", text], capture_output=True).returncode == 0


def _refuse_commands(page: Path, text: str) -> None:
    for line in textwrap.dedent(text).splitlines():
        assert line.split(" ")[0] not in COMMANDS, f"{page.name}: {line!r} is not in a ```sh block"


def _is_plain(text: str) -> bool:
    """`darkroom` with words that a shell would hand it as they are, but for quotes."""
    return text.startswith("darkroom ") and not re.search(r"[|&;<>$`*~]", text)


def shortened(text: str) -> str:
    """A command that puts load on a fleet, for two seconds and with few steps."""
    text = re.sub(r"(--duration |--run-time )\d+", r"\g<1>2", text)
    return re.sub(r"--steps \d+,\d+,\d+", "--steps 2,4,6", text)


@dataclass
class Reader:
    """Somebody with the environment active, in the empty directory `here`.

    The usual ports may be taken on this machine: the fleets of this reader get free ones by
    DARKROOM_HTTP_PORT and DARKROOM_NATS_PORT, and the two addresses that the pages speak of are
    replaced in what is run. Loads last two seconds, and their kinds of requests take few steps. A
    fleet that serves the models that a page asks for is not started anew. `darkroom` is asked in
    this process, unless a shell has to put its line together; what is installed under that name is
    tried by `test_wheel.py` and by `darkroom up`. This is all that differs from what is printed."""

    here: Path
    environment: dict[str, str]
    up: subprocess.Popen[str] | None = field(default=None, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @classmethod
    def beginning(cls, here: Path, settings: dict[str, str]) -> Self:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        ports = {"DARKROOM_HTTP_PORT": "0", "DARKROOM_NATS_PORT": "0"}
        return cls(here, {**os.environ, **settings, "PATH": path, **ports})

    @property
    def fleet(self) -> FleetState | None:
        directory = Path(self.environment["DARKROOM_STATE_DIR"])
        return read(directory) if directory.is_dir() else None

    def follow(self, step: Step) -> str:
        """Do what `step` says; returns what it printed. A fleet runs until the next one."""
        if step.text.startswith(START):
            return self._start(step.text)
        text = shortened(self._with_real_addresses(step.text))
        if step.kind == "program":
            (self.here / (step.file or "program.py")).write_text(text)
            if step.file:
                return ""  # the page has a command that runs it
            text = "python program.py"
        done = self._asked(text) if _is_plain(text) else self._run(text)
        assert done.returncode == 0, f"{step.text}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def _asked(self, text: str) -> subprocess.CompletedProcess[str]:
        _, *arguments = shlex.split(Step("command", text).command)
        with chdir(self.here):
            done = CliRunner().invoke(app, arguments, env=self.environment, catch_exceptions=False)
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)

    def _run(self, text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", text],
            cwd=self.here,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LONGEST,
        )

    def stop(self) -> None:
        """Ctrl-C in the terminal of the fleet, if one runs."""
        if self.up is None:
            return
        if self.up.poll() is None:
            os.killpg(self.up.pid, signal.SIGINT)
        self.up.wait(LONGEST)
        self.up = None

    def _serves(self, text: str) -> bool:
        """All that `text` asks of a fleet are the models that one serves already."""
        asked = set(re.findall(r" --model (\S+)", text))
        known = {Path(source).name for source in self.fleet.models} if self.fleet else set()
        return re.sub(r" --model \S+", "", text).strip() == START and asked == known

    def _start(self, text: str) -> str:
        if self._serves(text):
            return ""
        self.stop()
        log = self.here.parent / "up.log"
        with log.open("w") as output:
            self.up = subprocess.Popen(
                ["bash", "-c", text],
                cwd=self.here,
                env=self.environment,
                stdout=output,
                stderr=output,
                text=True,
                start_new_session=True,
            )

        async def ready() -> bool:
            assert self.up is not None
            assert self.up.poll() is None, f"{text}\n{log.read_text()}"
            return self.fleet is not None

        run(eventually(ready, within=LONGEST), timeout=LONGEST + 10)
        return log.read_text()

    def _with_real_addresses(self, text: str) -> str:
        if (fleet := self.fleet) is None:
            return text
        text = text.replace("http://127.0.0.1:8080", f"http://{fleet.http}")
        return text.replace("nats://127.0.0.1:4222", fleet.nats_url)


def assert_shows(file: Path, caption: str) -> None:
    """`file`: a picture, or a gateway's answer with one."""
    content = file.read_bytes()
    if file.suffix == ".json":
        content = base64.b64decode(json.loads(content)["data"][0]["b64_json"])
    with Image.open(io.BytesIO(content)) as picture:
        seen = read_scene(np.asarray(picture.convert("RGB")))
    assert all(all(right) for right in score(parse(caption), seen).values()), (file.name, seen)
