"""A fleet under keys and TLS, with two denoisers and two ControlNet processes."""

import json
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from services.fleet.cli.app import app
from shared.client import Darkroom
from shared.client.fleet_state import FleetState
from shared.security.keys import Credentials
from tests.chaos.fleet.holds import Hold
from tests.conftest import HANG_SECONDS
from tests.e2e.helpers.running import RunningFleet, running_fleet

MAKING = ("--tls", "my.host")
STARTING = ("--host", "0.0.0.0")
"""What README.md has `darkroom keys` and `darkroom up` do beyond this machine."""
TWO_OF_EACH = ("--replicas", "denoiser=2", "--replicas", "controlnet=2")


@dataclass(frozen=True)
class Secured:
    """`keys`: what `darkroom keys` made."""

    fleet: RunningFleet
    keys: Path

    @property
    def state(self) -> FleetState:
        return self.fleet.state

    @property
    def nats_url(self) -> str:
        return self.fleet.nats_url

    @property
    def environment(self) -> dict[str, str]:
        return self.fleet.environment

    @property
    def trusted(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.keys / "client" / "ca.crt"))

    def credentials(self, whose: str) -> Credentials:
        return Credentials.of_directory(self.keys / whose)

    def client(self) -> AbstractAsyncContextManager[Darkroom]:
        return Darkroom.connect(self.nats_url, credentials=self.credentials("client"))

    def hold(self, place: str) -> AbstractContextManager[Hold]:
        return self.fleet.hold(place)

    def ask(self, path: str, body: object = None, token: bool = True) -> Any:
        request = urllib.request.Request(self.state.local_url + path)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        if token:
            secret = (self.keys / "client" / "token").read_text().strip()
            request.add_header("Authorization", f"Bearer {secret}")
        with urllib.request.urlopen(request, context=self.trusted, timeout=HANG_SECONDS) as reply:
            return json.load(reply)


@contextmanager
def secured_fleet(keys: Path) -> Iterator[Secured]:
    """`keys`: a directory that is not there yet."""
    made = CliRunner().invoke(app, ["keys", str(keys), *MAKING], catch_exceptions=False)
    assert made.exit_code == 0, made.stderr
    with running_fleet("--keys", str(keys), *STARTING, replicas=TWO_OF_EACH) as fleet:
        yield Secured(fleet, keys)
