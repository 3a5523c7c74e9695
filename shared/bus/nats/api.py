"""The JetStream API as data: configurations to send, replies to read. No I/O."""

from typing import Any, Final

import msgspec

from shared.bus.base import BucketSpec, Headers, Message, StreamSpec
from shared.errors import BusUnavailable

API: Final = "$JS.API"
MESSAGE_ID: Final = "Nats-Msg-Id"
EXPECTED_REVISION: Final = "Nats-Expected-Last-Subject-Sequence"

WRONG_REVISION: Final = (10071, 10164)
NOT_STORED: Final = 10077
"""A bound was reached; the description tells which."""

SUBJECT_TAKEN: Final = "maximum messages per subject exceeded"
NO_MESSAGE: Final = 10037
CONFIG_DIFFERS: Final = 10058
NO_PEERS: Final = 10005
"""A cluster that is just being formed has fewer servers than a stream wants replicas."""
BEING_DELETED: Final = 10149
"""Creating a consumer found the old one of that name closed, but not yet gone."""

DUPLICATE_WINDOW: Final = 120.0
"""Seconds for which a repeated publish is recognised even if its message is gone again."""

MAX_WAITING: Final = 16384
"""Fetches that may wait on one consumer at once."""
FORGOTTEN_SECONDS: Final = 86_400.0
"""After which a consumer leaves that nobody pulled from. What waits there stays in the stream."""
PRIORITY_GROUP: Final = "load"
"""The one group of each consumer, in which pulls are served by priority."""
LAST_PRIORITY: Final = 9

MAX_UNACKNOWLEDGED: Final = 100_000
"""Messages that one consumer may have out."""


class Fault(msgspec.Struct, frozen=True):
    code: int
    err_code: int = 0
    description: str = ""


class Stored(msgspec.Struct, frozen=True):
    """A message as a stream's leader has it; the bytes come in base64."""

    subject: str
    seq: int
    hdrs: bytes = b""
    data: bytes = b""


class Reply(msgspec.Struct, frozen=True):
    """The fields that any of the replies we read may have."""

    error: Fault | None = None
    seq: int = 0
    duplicate: bool = False
    streams: list[str] | None = None
    total: int = 0
    config: dict[str, Any] = {}
    state: dict[str, Any] = {}
    message: Stored | None = None


class Refused(Exception):
    """The server understood and said no. Never leaves this package."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.description)
        self.err_code = fault.err_code
        self.description = fault.description


_decoder = msgspec.json.Decoder(Reply)


def read(message: Message) -> Reply:
    """Raises `Refused`, or `BusUnavailable` when the refusal is one that passes."""
    reply = _decoder.decode(message.data)
    if reply.error is not None:
        if _passes(reply.error):
            raise BusUnavailable("JetStream", reply.error.description)
        raise Refused(reply.error)
    return reply


def _passes(fault: Fault) -> bool:
    unavailable = fault.code == 503 and fault.err_code != NOT_STORED
    return unavailable or fault.err_code in (NO_PEERS, BEING_DELETED)


def write(body: dict[str, Any]) -> bytes:
    return msgspec.json.encode(body)


def nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def stream_config(spec: StreamSpec, replicas: int) -> dict[str, Any]:
    return _config(spec.name, list(spec.subjects), spec.max_age, replicas) | {
        "retention": "workqueue" if spec.work_queue else "limits",
        "discard_new_per_subject": True,
        "max_msgs": -1 if spec.max_messages is None else spec.max_messages,
    }


def bucket_config(spec: BucketSpec, replicas: int) -> dict[str, Any]:
    """As the NATS command line makes its key-value buckets, with a history of one."""
    subjects = [f"{bucket_subject(spec.name)}>"]
    return _config(bucket_stream(spec.name), subjects, spec.max_age, replicas) | {
        "retention": "limits",
        "max_msgs": -1,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
    }


def _config(name: str, subjects: list[str], max_age: float | None, replicas: int) -> dict[str, Any]:
    return {
        "name": name,
        "subjects": subjects,
        "storage": "file",
        "num_replicas": replicas,
        "discard": "new",
        "max_msgs_per_subject": 1,
        "max_age": nanoseconds(max_age or 0),
        "duplicate_window": nanoseconds(min(max_age or DUPLICATE_WINDOW, DUPLICATE_WINDOW)),
        "allow_direct": True,
    }


def consumer_config(stream: str, name: str, subject: str, ack_wait: float) -> dict[str, Any]:
    return {
        "stream_name": stream,
        "config": {
            "name": name,
            "durable_name": name,
            "filter_subject": subject,
            "deliver_policy": "all",
            "replay_policy": "instant",
            "ack_policy": "explicit",
            "ack_wait": nanoseconds(ack_wait),
            "max_deliver": -1,  # attempts are counted in the job's record, not here
            "max_ack_pending": MAX_UNACKNOWLEDGED,
            "max_waiting": MAX_WAITING,
            "priority_policy": "prioritized",
            "priority_groups": [PRIORITY_GROUP],
            # Of models that are gone nobody asks; who comes again makes it again.
            "inactive_threshold": nanoseconds(FORGOTTEN_SECONDS),
        },
    }


def bucket_stream(bucket: str) -> str:
    return f"KV_{bucket}"


def bucket_subject(bucket: str) -> str:
    """The prefix of the subjects of its keys."""
    return f"$KV.{bucket}."


def deliveries(ack_subject: str) -> int:
    """How often a message was delivered, from the subject that its acknowledgement goes to:
    `$JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>…`, or with domain and account before
    the stream."""
    return int(_after_consumer(ack_subject)[0])


def sequence(ack_subject: str) -> int:
    """The message's sequence in its stream."""
    return int(_after_consumer(ack_subject)[1])


def _after_consumer(ack_subject: str) -> list[str]:
    tokens = ack_subject.split(".")
    return tokens[4:] if len(tokens) == 9 else tokens[6:]


def stored_message(stored: Stored) -> Message:
    """In the form in which a direct get would have answered."""
    _, *lines = stored.hdrs.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if ": " in line)
    headers["Nats-Sequence"] = str(stored.seq)
    return Message(stored.subject, stored.data, headers)


def own_headers(headers: Headers) -> Headers:
    """Those the sender set, without those of NATS."""
    return {key: value for key, value in headers.items() if not key.startswith("Nats-")}
