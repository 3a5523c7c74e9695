"""A real fleet under keys and TLS: every process does its work, and nobody does another's."""

import base64
import json
import random
import urllib.error
from pathlib import Path

import aiohttp
import pytest
from PIL import Image

from pocket.captions import parse
from pocket.hints import HINTS
from pocket.render import lay_out, to_bytes
from shared import subjects
from shared.bus.discovery import services
from shared.bus.nats import connect
from shared.errors import Misconfigured, NotPermitted
from shared.security.tokens import add_token
from tests.conftest import HANG_SECONDS, eventually, run
from tests.e2e.helpers.guide import ROOT, Reader, assert_shows, steps
from tests.e2e.helpers.secured import MAKING, STARTING, Secured
from tests.helpers.models import copied

README = ROOT / "README.md"
BEYOND = "Beyond this machine"
"""Its section about keys."""


def test_a_fleet_under_keys_draws_over_http_and_over_the_bus(secured: Secured) -> None:
    drawn = secured.ask(
        "/v1/images/generations", {"prompt": "a red circle", "num_inference_steps": 2}
    )
    assert drawn["data"][0]["b64_json"]
    out = secured.keys.parent / "picture.png"
    rendered = secured.fleet.darkroom("render", "a red circle", "--steps", "2", "--out", str(out))
    assert rendered.returncode == 0, rendered.stdout + rendered.stderr
    assert out.stat().st_size > 100
    status = secured.fleet.darkroom("status", "--url", secured.nats_url)
    assert status.returncode == 0
    assert "denoiser" in status.stdout


def test_what_the_readme_does_beyond_this_machine_is_this_fleet_and_draws(
    secured: Secured,
) -> None:
    keys, token, up, *used = (step for step in steps(README) if step.under == BEYOND)
    assert keys.command == " ".join(("darkroom keys keys", *MAKING))
    assert up.command == " ".join(("darkroom up --keys keys", *STARTING))
    here = secured.keys.parent
    assert secured.keys.name == "keys"
    reader = Reader.beginning(here, secured.environment)
    for step in (token, *used):
        reader.follow(step)
    assert_shows(here / "secret.png", "a large red circle left on white")


def test_a_model_that_is_added_to_a_fleet_under_keys_is_drawn_with_at_once(
    secured: Secured, tmp_path: Path
) -> None:
    source = copied(tmp_path / "another", {"darkroom.json": None}, weights=True)
    added = secured.fleet.darkroom("models", "add", source)
    assert added.returncode == 0, added.stdout + added.stderr
    assert "darkroom keys" not in added.stdout
    wanted = {"prompt": "a red circle", "num_inference_steps": 2, "model": "another"}
    assert secured.ask("/v1/images/generations", wanted)["data"][0]["b64_json"]
    assert secured.fleet.darkroom("models", "remove", "another").returncode == 0


def test_a_fleet_under_keys_is_steered_by_pictures(secured: Secured) -> None:
    [model] = secured.ask("/v1/models")["data"]
    assert model["controls"] == ["blocks", "edges", "shading"]
    file = secured.keys.parent / "edges.png"
    layout = lay_out(parse("a large red circle left on white"), random.Random(0))
    Image.fromarray(to_bytes(HINTS["edges"](layout) * 255)).save(file)
    image = base64.b64encode(file.read_bytes()).decode()
    drawn = secured.ask(
        "/v1/images/generations",
        {
            "prompt": "a red circle",
            "num_inference_steps": 2,
            "controls": [
                {"model": "edges", "image": f"data:image/png;base64,{image}"},
                {"model": "shading", "image": image, "scale": 0.5, "end": 0.5},
            ],
        },
    )
    assert drawn["data"][0]["b64_json"]
    assert drawn["darkroom"]["approximations"] == []
    out = secured.keys.parent / "steered.png"
    steered = ("--control", f"edges={file}:0.8", "--control-lag", "1", "--out", str(out))
    rendered = secured.fleet.darkroom("render", "a red circle", "--steps", "2", *steered)
    assert rendered.returncode == 0, rendered.stdout + rendered.stderr
    assert "hint: done" in rendered.stdout
    assert out.stat().st_size > 100


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("target", ["darkroom", "nats"])
def test_a_load_finds_the_keys_of_the_fleet_that_runs_here(
    secured: Secured, target: str, named: bool
) -> None:
    short = ("--users", "1", "--duration", "1", "--steps", "2")
    own = secured.nats_url if target == "nats" else secured.state.local_url
    address = ("--url", own.replace("127.0.0.1", "localhost")) if named else ()
    done = secured.fleet.darkroom("load", "--target", target, *address, *short, "--json", "-")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["overall"]
    assert found["requests"] == found["done"] > 0


def test_a_late_job_fails_by_name_and_nothing_that_was_needed_was_denied(
    secured: Secured,
) -> None:
    body = {"prompt": "a red circle", "num_inference_steps": 100, "deadline": 0.001}
    with pytest.raises(urllib.error.HTTPError) as late:
        secured.ask("/v1/images/generations", body)
    with late.value as refused:
        assert refused.code == 504
        assert json.load(refused)["error"]["code"] == "deadline_exceeded"
    logs = "".join(path.read_text() for path in Path(secured.state.logs).glob("*.log"))
    assert "violation" not in logs
    assert "not_permitted" not in logs


def test_without_a_token_nothing_is_drawn(secured: Secured) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        secured.ask("/v1/images/generations", {"prompt": "a red circle"}, token=False)
    with refused.value as answer:
        assert answer.code == 401
    assert secured.ask("/readyz", token=False)["ready"] is True


def test_new_tokens_count_in_a_running_fleet_and_a_broken_file_is_told(secured: Secured) -> None:
    tokens = secured.keys / "gateway" / "tokens"
    token = add_token(tokens, "another")

    async def opens() -> bool:
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.get(f"{secured.state.local_url}/v1/models", ssl=secured.trusted) as answer,
        ):
            return answer.status == 200

    async def told() -> bool:
        bus = await connect(secured.nats_url, "admin", credentials=secured.credentials("admin"))
        try:
            found = [one for one in await services(bus, 0.5) if one.service == "gateway"]
            return bool(found) and any("mode 640" in text for text in found[0].warnings)
        finally:
            await bus.close()

    run(eventually(opens))
    tokens.chmod(0o640)
    try:
        run(eventually(told))
        assert secured.ask("/v1/models")["data"]
    finally:
        tokens.chmod(0o600)


def test_a_services_key_is_of_no_use_for_anything_else(secured: Secured) -> None:
    async def scenario() -> None:
        with pytest.raises(Misconfigured):
            await connect(secured.nats_url, "nobody", budget=HANG_SECONDS)
        bus = await connect(secured.nats_url, "vae", credentials=secured.credentials("vae"))
        try:
            with pytest.raises(NotPermitted):
                await bus.store(subjects.submit("job"), b"")
        finally:
            await bus.close()

    run(scenario())
