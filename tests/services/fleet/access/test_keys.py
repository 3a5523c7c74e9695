"""`darkroom keys` and `darkroom token`: what they write, for whom, and how they say no."""

import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from services.fleet.access.keys import make_keys, server_access
from services.fleet.access.permissions import HOLDERS
from services.fleet.cli.app import app
from services.fleet.plan.processes import FleetOptions, plan_processes
from shared.errors import Misconfigured
from shared.security.keys import Credentials
from shared.security.tokens import Tokens
from shared.services import Served

SERVED = Served(("pocket",), ("edges",))


def darkroom(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "300", "NO_COLOR": "1"})


def test_every_service_gets_a_key_of_its_own_and_no_other_user_can_read_it(tmp_path: Path) -> None:
    result = darkroom("keys", str(tmp_path / "keys"))
    assert result.exit_code == 0, result.output
    found = {Credentials.of_directory(tmp_path / "keys" / holder).public for holder in HOLDERS}
    assert len(found) == len(HOLDERS)
    for path in (tmp_path / "keys").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    authorization = (tmp_path / "keys" / "nats" / "authorization.conf").read_text()
    assert all(key in authorization for key in found)
    for holder in HOLDERS:
        assert Credentials.of_directory(tmp_path / "keys" / holder).seed not in authorization


def test_making_keys_again_keeps_them_and_replaces_what_was_removed(tmp_path: Path) -> None:
    make_keys(tmp_path, SERVED, ("localhost",))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / "vae" / "nkey").unlink()
    assert make_keys(tmp_path, SERVED, ("localhost",)) == [
        tmp_path / "vae" / "nkey",
        tmp_path / "nats" / "authorization.conf",
    ]
    changed = {path for path, content in before.items() if path.read_bytes() != content}
    assert changed == {tmp_path / "vae" / "nkey", tmp_path / "nats" / "authorization.conf"}


def test_keys_are_not_made_where_others_can_look(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    result = darkroom("keys", str(tmp_path / "open"))
    assert result.exit_code == 1
    assert "with mode 755" in result.output


def test_without_keys_a_server_has_nothing_to_go_by(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="make it with darkroom keys"):
        server_access(tmp_path)


def test_each_process_is_told_of_its_own_keys_alone(tmp_path: Path) -> None:
    make_keys(tmp_path, SERVED, ("localhost",))
    options = FleetOptions(keys=tmp_path, http_port=1)
    inherited = {"DARKROOM_KEYS": str(tmp_path)}
    for spec in plan_processes(options, "tls://127.0.0.1:1", inherited):
        environment = spec.environment
        assert environment["DARKROOM_CREDENTIALS"] == str(tmp_path / spec.service)
        assert environment["DARKROOM_KEYS"] == ""
        told = {value for value in environment.values() if value.startswith(str(tmp_path))}
        assert all(value.startswith(str(tmp_path / spec.service)) for value in told)
        tls = environment.get("DARKROOM_HTTP_CERT", "")
        assert bool(tls) is (spec.service == "gateway")


def test_a_token_is_printed_once_and_its_hash_kept(tmp_path: Path) -> None:
    result = darkroom("token", "alice", str(tmp_path / "tokens"))
    assert result.exit_code == 0, result.output
    token = result.output.strip()
    assert Tokens.load(tmp_path / "tokens").holder(f"Bearer {token}") == "alice"


def test_the_first_token_opens_the_gateway(tmp_path: Path) -> None:
    make_keys(tmp_path, SERVED, ())
    token = (tmp_path / "client" / "token").read_text().strip()
    assert Tokens.load(tmp_path / "gateway" / "tokens").holder(f"Bearer {token}") == "default"


@pytest.mark.parametrize("command", ["up", "keys", "token"])
def test_help_says_what_a_command_is_for(command: str) -> None:
    assert darkroom(command, "--help").exit_code == 0
