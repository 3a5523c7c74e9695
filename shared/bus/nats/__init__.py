"""The bus on NATS JetStream. Nothing outside this package imports the client library."""

from shared.bus.nats.bus import NatsBus, connect

__all__ = ["NatsBus", "connect"]
