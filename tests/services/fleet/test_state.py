import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from shared.client.addresses import same_place
from shared.client.fleet_state import FleetState, Member, clear, read, state_directory, write
from shared.errors import Misconfigured
from shared.tensors.owners import start_time


def state_of(pid: int, started: int | None = None) -> FleetState:
    return FleetState(
        pid=pid,
        started=(start_time(pid) or 0) if started is None else started,
        nats_url="nats://127.0.0.1:4222",
        http="http://127.0.0.1:8080",
        logs="/tmp/logs",
        models=("a",),
        members=(Member(name="vae", pid=None, state="backing off", restarts=2),),
    )


def put(directory: Path, state: FleetState) -> None:
    (directory / "fleet.json").write_bytes(msgspec.json.encode(state))


def test_a_running_fleet_is_found(tmp_path: Path) -> None:
    mine = state_of(os.getpid())
    write(tmp_path, mine)
    assert read(tmp_path) == mine


def test_a_fleet_whose_process_is_gone_is_ignored(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    put(tmp_path, state_of(process.pid, started=1))
    assert read(tmp_path) is None


def test_a_fleet_whose_pid_now_belongs_to_another_process_is_ignored(tmp_path: Path) -> None:
    put(tmp_path, state_of(os.getpid(), started=(start_time(os.getpid()) or 0) - 1))
    assert read(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{}", '{"pid": "x"}'])
def test_what_is_no_state_file_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "fleet.json").write_text(content)
    assert read(tmp_path) is None


def test_a_second_fleet_is_refused_and_leaves_the_first_ones_file(tmp_path: Path) -> None:
    first = state_of(os.getppid())
    put(tmp_path, first)
    with pytest.raises(Misconfigured, match="runs already"):
        write(tmp_path, state_of(os.getpid()))
    clear(tmp_path)
    assert read(tmp_path) == first


def test_clearing_removes_our_own_file(tmp_path: Path) -> None:
    write(tmp_path, state_of(os.getpid()))
    clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_directory_is_private_and_can_be_chosen(tmp_path: Path) -> None:
    chosen = state_directory({"DARKROOM_STATE_DIR": str(tmp_path / "a")})
    assert chosen == tmp_path / "a"
    assert chosen.stat().st_mode & 0o777 == 0o700
    runtime = state_directory({"XDG_RUNTIME_DIR": str(tmp_path)})
    assert runtime == tmp_path / "darkroom"


@pytest.mark.parametrize(
    ("url", "own", "same"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", True),
        ("http://localhost:8080/v1/", "http://127.0.0.1:8080", True),
        ("HTTP://LOCALHOST:8080", "http://127.0.0.1:8080", True),
        ("http://127.0.0.1", "http://127.0.0.1:80", True),
        ("nats://127.0.0.1", "tls://127.0.0.1:4222", True),
        ("http://127.0.0.7:8080", "http://127.0.0.1:8080", False),
        ("http://127.0.0.7:8080", "http://0.0.0.0:8080", True),
        ("http://192.0.2.1:8080", "http://0.0.0.0:8080", False),
        ("http://192.0.2.1:8080", "http://192.0.2.1:8080", True),
        ("https://127.0.0.1:8080", "http://127.0.0.1:8080", False),
        ("http://127.0.0.1:8081", "http://127.0.0.1:8080", False),
        ("nats://127.0.0.1:8080", "http://127.0.0.1:8080", False),
        ("http://127.0.0.1:x", "http://127.0.0.1:8080", False),
        ("127.0.0.1:8080", "http://127.0.0.1:8080", False),
        ("", "", False),
    ],
)
def test_an_address_is_a_fleets_own_however_its_host_is_called(
    url: str, own: str, same: bool
) -> None:
    assert same_place(url, own) is same


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("https://0.0.0.0:8443", "https://127.0.0.1:8443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://10.0.0.7:8080", "https://10.0.0.7:8080"),
        ("", ""),
    ],
)
def test_a_gateway_that_listens_everywhere_is_reached_over_loopback(url: str, local: str) -> None:
    host = url.partition("://")[2]
    state = msgspec.structs.replace(state_of(1), http=host, http_url=url)
    assert state.local_url == local
