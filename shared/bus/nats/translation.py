"""The client library's errors, and the server's answers, in our words."""

import contextlib
from collections.abc import Iterator
from typing import Final

from nats import errors

from shared.bus.base import Headers, Message
from shared.errors import BusUnavailable, InvalidRequest

HEADER_ROOM: Final = 4096
"""Bytes of the server's payload limit that are kept for headers."""


class NobodyListens(BusUnavailable):
    """The server knows nobody who would get a message on `subject`."""

    def __init__(self, subject: str) -> None:
        super().__init__(subject, "nobody listens")


@contextlib.contextmanager
def translated(subject: str) -> Iterator[None]:
    """Turn an error of the client library into one of ours."""
    try:
        yield
    except (errors.BadSubjectError, errors.BadHeaderError) as error:
        raise InvalidRequest("subject", subject, "what NATS allows in subjects, headers") from error
    except (errors.Error, OSError) as error:
        raise BusUnavailable(subject, str(error) or type(error).__name__) from error


def status(message: Message) -> str:
    """The code by which the server says something about a request; empty for a real message."""
    if message.data or "Nats-Sequence" in message.headers:
        return ""
    return message.headers.get("Status", "")


def payload_bytes(data: bytes, headers: Headers | None) -> int:
    """What a message takes of the payload limit, for which `HEADER_ROOM` was set aside."""
    if not headers:
        return len(data)
    lines = sum(len(key.encode()) + len(value.encode()) + 4 for key, value in headers.items())
    return len(data) + max(0, lines + len("NATS/1.0\r\n\r\n") - HEADER_ROOM)
