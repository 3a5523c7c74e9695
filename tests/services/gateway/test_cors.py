"""Which pages a browser lets use the gateway: an allow-list, asked before the token."""

from typing import Any

import pytest

from services.gateway.http.access import AccessControl
from services.gateway.http.cors import Origins
from shared.errors import Misconfigured
from tests.conftest import run
from tests.services.gateway.server import Answer, Server, server
from tests.services.gateway.test_door import TOKEN, TOKENS, bearer

LIST = "https://studio.example, http://localhost:5173,https://*.example.org, tauri://localhost"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://studio.example", True),
        ("http://localhost:5173", True),
        ("tauri://localhost", True),
        ("https://a.example.org", True),
        ("https://a.b.example.org", True),
        ("https://example.org", False),
        ("https://.example.org", False),
        ("https://evilexample.org", False),
        ("http://a.example.org", False),
        ("https://a.example.org:8443", False),
        ("https://a.example.org.evil.test", False),
        ("http://studio.example", False),
        ("https://studio.example:8443", False),
        ("https://studio.example.evil.test", False),
        ("http://localhost", False),
        ("null", False),
        ("", False),
    ],
)
def test_an_origin_is_allowed_by_scheme_host_and_port(origin: str, allowed: bool) -> None:
    assert Origins.of(LIST).allows(origin) is allowed
    assert Origins.of("*").allows(origin)
    assert not Origins.of("").allows(origin)


def test_origins_are_read_as_browsers_write_them() -> None:
    wanted = Origins.of("https://studio.example,http://h:8080,https://[::1]:8443")
    assert Origins.of("HTTPS://Studio.Example:443, http://H:08080,https://[::1]:8443,") == wanted


@pytest.mark.parametrize(
    "given",
    [
        *("studio.example", "https://studio.example/", "https://studio.example/app", "null"),
        *("https://*", "https://a.*.example", "https://", "https://h:0", "https://h:65536"),
        *("https://h:", "https://a b", "https://u@h", "https://h,javascript:alert(1)", "**"),
    ],
)
def test_what_is_no_origin_is_refused_by_name(given: str) -> None:
    with pytest.raises(Misconfigured, match=r"DARKROOM_CORS_ORIGINS: .* is not allowed; allowed"):
        Origins.of(given)


async def preflight(here: Server, path: str, origin: str, **headers: str) -> Answer:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", **headers}
    return await here.ask("OPTIONS", path, headers=asked)


def allowed(answer: Answer) -> str | None:
    return answer.headers.get("Access-Control-Allow-Origin")


def test_a_preflight_is_answered_without_a_token() -> None:
    asked = {
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
        "Access-Control-Request-Private-Network": "true",
    }

    async def scenario() -> None:
        async with server(access=AccessControl(TOKENS, origins=Origins.of(LIST))) as here:
            for path in ("/v1/images/generations", "/v1/images/edits", "/v1/jobs/j", "/healthz"):
                answer = await preflight(here, path, "https://studio.example", **asked)
                assert (answer.status, answer.body) == (204, b"")
                assert allowed(answer) == "https://studio.example"
                assert answer.headers["Vary"] == "Origin"
                assert "DELETE" in answer.headers["Access-Control-Allow-Methods"]
                assert "x-stainless-os" in answer.headers["Access-Control-Allow-Headers"]
                assert answer.headers["Access-Control-Allow-Private-Network"] == "true"
                assert "Access-Control-Allow-Credentials" not in answer.headers
            refused = await preflight(here, "/v1/images/generations", "https://evil.test")
            assert (refused.status, refused.error["code"]) == (403, "origin_not_allowed")
            assert "'https://evil.test'" in refused.error["message"]
            assert "DARKROOM_CORS_ORIGINS" in refused.error["message"]
            assert allowed(refused) is None
            # An OPTIONS that is no preflight is a request as any other.
            assert (await here.ask("OPTIONS", "/v1/models")).status == 401

    run(scenario())


def test_every_answer_says_whose_pages_may_read_it_refusals_and_streams_too() -> None:
    ours = {"Origin": "https://studio.example"}
    drawn: Any = {"prompt": "a red circle"}

    async def scenario() -> None:
        async with server(access=AccessControl(TOKENS, origins=Origins.of(LIST))) as here:
            for method, path, body, status in (
                ("GET", "/v1/models", None, 200),
                ("GET", "/no/such/place", None, 404),
                ("PUT", "/v1/models", None, 405),
                ("POST", "/v1/images/generations", {**drawn, "steps!": 1}, 400),
                ("POST", "/v1/images/generations", drawn, 200),
                ("POST", "/v1/images/generations", {**drawn, "stream": True}, 200),
            ):
                answer = await here.ask(method, path, json=body, headers=bearer(TOKEN) | ours)
                assert answer.status == status, (path, answer.body)
                assert allowed(answer) == "https://studio.example"
                assert answer.headers["Access-Control-Expose-Headers"] == "*"
            stranger = await here.ask("GET", "/v1/models", headers=ours)
            assert (stranger.status, allowed(stranger)) == (401, "https://studio.example")
            for other in ({"Origin": "https://evil.test"}, {}):
                answer = await here.ask("GET", "/v1/models", headers=bearer(TOKEN) | other)
                assert (answer.status, allowed(answer)) == (200, None)
                assert answer.headers["Vary"] == "Origin"

    run(scenario())


def test_without_a_list_no_page_may_and_with_a_star_any_may() -> None:
    page = {"Origin": "https://any.test"}

    async def scenario() -> None:
        async with server() as here:
            answer = await here.ask("GET", "/v1/models", headers=page)
            assert (allowed(answer), answer.headers.get("Vary")) == (None, None)
            assert (await preflight(here, "/v1/models", "https://any.test")).status == 403
            here.gateway.access.origins = Origins.of("*")
            assert allowed(await here.ask("GET", "/v1/models", headers=page)) == "*"
            assert allowed(await preflight(here, "/v1/models", "null")) == "*"

    run(scenario())
