"""What proxies say counts if they are trusted, and only as far as it is theirs."""

import logging

import pytest
from multidict import CIMultiDict

from services.gateway.http.access import AccessControl
from services.gateway.http.forwarded import Proxies
from shared.errors import InvalidRequest, Misconfigured
from tests.conftest import run
from tests.services.gateway.server import server

PROXIES = Proxies.of("10.0.0.0/8, 192.0.2.7,fd00::/8")


def client(peer: str, *forwarded: str) -> str:
    return PROXIES.client(peer, CIMultiDict([("X-Forwarded-For", one) for one in forwarded]))


def origin(peer: str, **said: str) -> str:
    headers = CIMultiDict({f"X-Forwarded-{name}": value for name, value in said.items()})
    return PROXIES.origin(peer, headers, "http", "gateway:8080")


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("203.0.113.9", ("198.51.100.1",), "203.0.113.9"),
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("198.51.100.1",), "198.51.100.1"),
        ("10.0.0.1", ("1.2.3.4, 198.51.100.1",), "198.51.100.1"),
        ("10.0.0.1", ("1.2.3.4, 198.51.100.1, 192.0.2.7",), "198.51.100.1"),
        ("10.0.0.1", ("198.51.100.1", "10.0.0.2"), "198.51.100.1"),
        ("10.0.0.1", ("10.0.0.3, 10.0.0.2",), "10.0.0.3"),
        ("::ffff:10.0.0.1", ("198.51.100.1:4711",), "198.51.100.1"),
        ("fd00::1", ("[2001:db8::1]:443",), "2001:db8::1"),
        ("10.0.0.1", ("unknown",), "10.0.0.1"),
        ("10.0.0.1", ("198.51.100.1, _hidden, 10.0.0.2",), "10.0.0.2"),
        ("10.0.0.1", (" , ,",), "10.0.0.1"),
        ("", ("198.51.100.1",), ""),
    ],
)
def test_the_client_is_the_first_who_is_no_trusted_proxy(
    peer: str, forwarded: tuple[str, ...], found: str
) -> None:
    assert client(peer, *forwarded) == found


@pytest.mark.parametrize(
    ("peer", "said", "found"),
    [
        ("203.0.113.9", {"Proto": "https", "Host": "evil.test"}, "http://gateway:8080"),
        ("10.0.0.1", {}, "http://gateway:8080"),
        ("10.0.0.1", {"Proto": "https"}, "https://gateway:8080"),
        ("10.0.0.1", {"Proto": "HTTPS", "Host": "img.example"}, "https://img.example"),
        ("10.0.0.1", {"Proto": "https", "Host": "img.example:443"}, "https://img.example"),
        ("10.0.0.1", {"Host": "img.example:8443"}, "http://img.example:8443"),
        ("10.0.0.1", {"Host": "img.example", "Prefix": "/draw/"}, "http://img.example/draw"),
        ("10.0.0.1", {"Host": "[2001:db8::1]:8443"}, "http://[2001:db8::1]:8443"),
        # One trusted proxy: what stands before its own word came from the client.
        ("10.0.0.1", {"Host": "evil.test, img.example"}, "http://img.example"),
        ("10.0.0.1", {"For": "1.2.3.4", "Proto": "https, http"}, "http://gateway:8080"),
        # Two of them: the outer one spoke to the client.
        ("10.0.0.1", {"For": "1.2.3.4, 10.0.0.2", "Proto": "https, http"}, "https://gateway:8080"),
        ("10.0.0.1", {"For": "1.2.3.4, 10.0.0.2", "Proto": "https"}, "https://gateway:8080"),
        ("10.0.0.1", {"For": "10.0.0.2", "Proto": "ftp, https, http"}, "https://gateway:8080"),
    ],
)
def test_addresses_are_those_that_the_client_used(
    peer: str, said: dict[str, str], found: str
) -> None:
    assert origin(peer, **said) == found


@pytest.mark.parametrize(
    "said",
    [
        *({"Proto": "wss"}, {"Host": "a b"}, {"Host": "h:0"}, {"Host": "h:65536"}),
        *({"Host": "u@h"}, {"Host": "h/path"}, {"Host": "h?x"}, {"Prefix": "draw"}),
        *({"Prefix": "//evil.test"}, {"Prefix": "/a?b"}, {"Prefix": '/"'}),
    ],
)
def test_what_cannot_be_part_of_an_address_is_refused_by_name(said: dict[str, str]) -> None:
    [name] = said
    with pytest.raises(InvalidRequest, match=f"X-Forwarded-{name}: "):
        origin("10.0.0.1", **said)
    assert origin("203.0.113.9", **said) == "http://gateway:8080"


@pytest.mark.parametrize("given", ["proxy.local", "10.0.0.1/8", "10.0.0", "*", "10.0.0.1:80"])
def test_what_is_no_network_is_refused_by_name(given: str) -> None:
    with pytest.raises(Misconfigured, match=r"DARKROOM_TRUSTED_PROXIES: .* is not allowed"):
        Proxies.of(f"10.0.0.0/8,{given}")


def test_image_addresses_and_the_log_say_what_a_trusted_proxy_says(
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = {
        "X-Forwarded-For": "198.51.100.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "img.example",
    }
    body = {"prompt": "a red circle", "response_format": "url"}

    async def urls(proxies: str) -> list[str]:
        async with server(access=AccessControl(proxies=Proxies.of(proxies))) as here:
            drawn = await here.ask("POST", "/v1/images/generations", json=body, headers=said)
            job = drawn.json["darkroom"]["job_id"]
            view = await here.ask("GET", f"/v1/jobs/{job}", headers=said)
            here_is = f"http://{here.gateway.address}"
            assert view.status == 200
            found = [drawn.json["data"][0]["url"], *view.json["images"]]
            return [url.replace(here_is, "HERE").replace(job, "JOB") for url in found]

    caplog.set_level(logging.INFO, "darkroom.access")
    assert run(urls("127.0.0.0/8")) == ["https://img.example/v1/images/JOB/0"] * 2
    assert {record.client for record in caplog.records if hasattr(record, "client")} == {
        "198.51.100.1"
    }
    caplog.clear()
    assert run(urls("")) == ["HERE/v1/images/JOB/0"] * 2
    assert {record.client for record in caplog.records if hasattr(record, "client")} == {
        "127.0.0.1"
    }


def test_a_trusted_proxys_bad_host_is_an_answer_before_anything_is_drawn() -> None:
    async def scenario() -> None:
        async with server(access=AccessControl(proxies=Proxies.of("127.0.0.1"))) as here:
            headers = {"X-Forwarded-Host": "a b"}
            refused = await here.ask("GET", "/v1/models", headers=headers)
            assert (refused.status, refused.error["param"]) == (400, "X-Forwarded-Host")

    run(scenario())


@pytest.mark.parametrize(
    ("peer", "said", "found", "begins"),
    [
        (
            "10.0.0.1",
            ["for=198.51.100.1;proto=https;host=img.example"],
            "198.51.100.1",
            "https://img.example",
        ),
        (
            "10.0.0.1",
            ['For="[2001:db8::1]:4711" ; Proto = https'],
            "2001:db8::1",
            "https://gateway:8080",
        ),
        (
            "10.0.0.1",
            ["for=1.2.3.4;host=evil.test, for=198.51.100.1;host=img.example"],
            "198.51.100.1",
            "http://img.example",
        ),
        ("10.0.0.1", ["for=198.51.100.1, for=10.0.0.2"], "198.51.100.1", "http://gateway:8080"),
        ("10.0.0.1", ["for=_hidden, for=unknown"], "10.0.0.1", "http://gateway:8080"),
        ("203.0.113.9", ["for=1.2.3.4;host=evil.test"], "203.0.113.9", "http://gateway:8080"),
        ("10.0.0.1", [";;,,= =="], "10.0.0.1", "http://gateway:8080"),
    ],
)
def test_the_header_of_rfc_7239_counts_where_it_is_alone(
    peer: str, said: list[str], found: str, begins: str
) -> None:
    headers = CIMultiDict([("Forwarded", one) for one in said])
    assert PROXIES.client(peer, headers) == found
    assert PROXIES.origin(peer, headers, "http", "gateway:8080") == begins
    headers.add("X-Forwarded-For", "198.51.100.7")
    assert PROXIES.client(peer, headers) in ("198.51.100.7", "203.0.113.9")
