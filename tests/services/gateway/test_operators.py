"""What operators may change over HTTP: which models are served."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from services.gateway.app import HttpOptions, serving
from services.gateway.http.access import AccessControl
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.bus.topology import TOPOLOGY
from shared.errors import Forbidden, Misconfigured
from shared.models.catalogue import Catalogue
from shared.process.served import ServedCatalogue
from shared.security.tokens import Tokens, add_token
from shared.telemetry.metrics import Metrics
from tests.conftest import run
from tests.helpers.models import FLUX, SDXL
from tests.services.gateway.pipeline import Pipeline
from tests.services.gateway.server import Server


@asynccontextmanager
async def gateway(tokens: Tokens | None) -> AsyncIterator[tuple[Server, ServedCatalogue]]:
    bus = MemoryBus(MemoryBroker(), "test")
    await bus.ensure(TOPOLOGY)
    served = await ServedCatalogue(bus, (SDXL,), Catalogue.load).begin()
    options = HttpOptions(access=AccessControl(tokens=tokens), grace=0.2)
    async with (
        aiohttp.ClientSession() as http,
        serving(bus, served.catalogue, Metrics("gateway"), options) as found,
    ):
        found.served = served

        async def changed() -> None:
            found.serve(served.catalogue)

        served.changed.append(changed)
        yield Server(found, Pipeline(bus, served.catalogue), bus, http), served


def two_tokens(path: Path) -> tuple[Tokens, str, str]:
    """Those of an operator and of a user."""
    operator = add_token(path, "op", operator=True)
    user = add_token(path, "user", interactive=True)
    return Tokens.load(path), operator, user


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_an_operator_adds_and_removes_models_while_the_gateway_runs(tmp_path: Path) -> None:
    tokens, operator, _ = two_tokens(tmp_path / "tokens")

    async def main() -> None:
        async with gateway(tokens) as (here, _):
            added = await here.ask(
                "POST", "/v1/models", json={"source": FLUX}, headers=bearer(operator)
            )
            assert (added.status, added.json["id"]) == (201, "pocket-flux")
            listed = (await here.ask("GET", "/v1/models", headers=bearer(operator))).json["data"]
            assert [one["id"] for one in listed] == ["pocket-sdxl", "pocket-flux"]
            again = await here.ask(
                "POST", "/v1/models", json={"source": FLUX}, headers=bearer(operator)
            )
            assert again.status == 201
            for name in ("pocket-flux", "pocket-flux"):
                gone = await here.ask("DELETE", f"/v1/models/{name}", headers=bearer(operator))
                if gone.status != 200:
                    break
                assert gone.json == {"id": "pocket-flux", "object": "model", "deleted": True}
            assert (gone.status, gone.json["error"]["code"]) == (400, "model_not_found")
            last = await here.ask("DELETE", "/v1/models/pocket-sdxl", headers=bearer(operator))
            assert last.status == 400
            assert "the last of those that are served" in last.json["error"]["message"]

    run(main())


def test_what_is_no_model_is_refused_at_once(tmp_path: Path) -> None:
    tokens, operator, _ = two_tokens(tmp_path / "tokens")

    async def main() -> None:
        async with gateway(tokens) as (here, _):
            for body, param, said in (
                ({"source": str(tmp_path)}, "source", "is not a diffusers directory"),
                ({"source": ""}, "body", "length"),
                ({"source": 3}, "body", "str"),
                ({}, "body", "source"),
                ({"source": SDXL, "name": "x"}, "body", "name"),
                ([], "body", "object"),
            ):
                refused = await here.ask("POST", "/v1/models", json=body, headers=bearer(operator))
                error = refused.json["error"]
                assert (refused.status, error["param"]) == (400, None if param == "body" else param)
                assert said in error["message"]

    run(main())


def test_nobody_else_may_change_what_is_served(tmp_path: Path) -> None:
    tokens, _, user = two_tokens(tmp_path / "tokens")

    async def main() -> None:
        async with gateway(tokens) as (here, served):
            for method, path in (("POST", "/v1/models"), ("DELETE", "/v1/models/pocket-sdxl")):
                stranger = await here.ask(method, path, json={"source": FLUX})
                assert stranger.status == 401
                known = await here.ask(method, path, json={"source": FLUX}, headers=bearer(user))
                assert (known.status, known.json["error"]["code"]) == (403, "permission_denied")
                assert "darkroom token --operator" in known.json["error"]["message"]
        async with gateway(None) as (here, served):
            anybody = await here.ask("POST", "/v1/models", json={"source": FLUX})
            assert anybody.status == 403
            assert "darkroom models add" in anybody.json["error"]["message"]
            assert list(served.catalogue.cards) == ["pocket-sdxl"]

    run(main())


def test_a_file_of_tokens_says_who_is_an_operator(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    add_token(path, "both", interactive=True, operator=True)
    add_token(path, "none")
    tokens = Tokens.load(path)
    tokens.check_operator("both")
    tokens.check_class("both", "interactive")
    with pytest.raises(Forbidden, match="the API key 'none' may not change what is served"):
        tokens.check_operator("none")
    path.write_text(path.read_text().replace("interactive operator", "operator root"))
    with pytest.raises(Misconfigured, match=r"tokens:1: .* `interactive` and `operator`"):
        Tokens.load(path)
