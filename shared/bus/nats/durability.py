"""Whether the server syncs a message to the disk before it acknowledges it.

By default it does so every two minutes, and what it acknowledged in between is gone after a power
failure. It does not tell its clients; its monitoring port does.
"""

import asyncio
import logging
import urllib.request
from typing import Any, Final, Literal

import msgspec

from shared.errors import Misconfigured

TIMEOUT: Final = 3.0
ADVICE: Final = "set `sync_interval: always` in the jetstream block of its configuration"

Finding = Literal["always", "sometimes", "unknown"]

log = logging.getLogger(__name__)


def finding(varz: dict[str, Any]) -> Finding:
    """From the answer to /varz."""
    config = (varz.get("jetstream") or {}).get("config")
    if not config:
        return "unknown"
    return "always" if config.get("sync_always") else "sometimes"


async def check_sync(monitors: str, stated: str, replicas: int) -> None:
    """Raises `Misconfigured` if a server that keeps the only copy of a stream acknowledges what it
    has not synced. `monitors`: addresses (comma-separated) of monitoring ports; `stated`: what the
    operator vouches for. Where neither is given, all that can be done is to say so."""
    for address in filter(None, monitors.split(",")):
        match finding(await asyncio.to_thread(_varz, address)):
            case "sometimes" if replicas == 1:
                raise Misconfigured(
                    f"the bus at {address} acknowledges messages that it has not synced, and keeps "
                    f"the only copy: {ADVICE}"
                )
            case "sometimes":
                log.warning("sync_not_always: the bus at %s; %s", address, ADVICE)
            case "unknown":
                raise Misconfigured(f"DARKROOM_NATS_MONITOR: {address} runs no JetStream")
    if not monitors and stated != "always":
        log.warning(
            "sync_unverified: whether the bus syncs what it acknowledges cannot be asked over its "
            "client port; %s, then DARKROOM_NATS_MONITOR to its monitoring address, or "
            "DARKROOM_NATS_SYNC=always to vouch for it",
            ADVICE,
        )


def _varz(address: str) -> dict[str, Any]:
    try:
        if not address.startswith(("http://", "https://")):
            raise ValueError("it has to begin with http:// or https://")
        with urllib.request.urlopen(f"{address.rstrip('/')}/varz", timeout=TIMEOUT) as answer:
            return msgspec.json.decode(answer.read(), type=dict[str, Any])
    except (OSError, ValueError) as error:
        raise Misconfigured(f"DARKROOM_NATS_MONITOR: {address}/varz: {error}") from error
