"""Where `darkroom up` puts its bus."""

import socket

import pytest

from services.fleet import up


def test_the_bus_is_at_the_usual_port_if_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        port = somebody.getsockname()[1]
        monkeypatch.setattr(up, "NATS_PORT", port)
        assert up.choose_nats_port(None) is None
        assert up.choose_nats_port(port) == port  # asked for, it is refused rather than moved
    assert up.choose_nats_port(None) == port
    assert up.choose_nats_port(0) is None
