"""What a user of the bus has to be allowed for each thing that a `Bus` does. Pure.

The wire subjects of JetStream appear here and in `api.py` only. What is not granted is denied.
"""

from dataclasses import dataclass
from typing import Final

from shared.bus.nats.api import API, bucket_stream, bucket_subject


@dataclass(frozen=True, slots=True)
class Grants:
    """Subject patterns that may be published to, and subscribed to."""

    publish: frozenset[str] = frozenset()
    subscribe: frozenset[str] = frozenset()

    def __add__(self, other: "Grants") -> "Grants":
        return Grants(self.publish | other.publish, self.subscribe | other.subscribe)


NOTHING: Final = Grants()
EVERYTHING: Final = Grants(frozenset({">"}), frozenset({">"}))


def publish(*subjects: str) -> Grants:
    return Grants(publish=frozenset(subjects))


def subscribe(*subjects: str) -> Grants:
    return Grants(subscribe=frozenset(subjects))


def total(*grants: Grants) -> Grants:
    return sum(grants, NOTHING)


def own_inbox(inbox: str) -> Grants:
    """Answers, and the echo by which a connection knows that it is in step with the server."""
    return publish(f"{inbox}.>") + subscribe(f"{inbox}.>")


def make_streams(*streams: str) -> Grants:
    """Create what is missing. One that exists is left as it is: changing it is `change_streams`."""
    return publish(*(f"{API}.STREAM.CREATE.{stream}" for stream in streams))


def change_streams(*streams: str) -> Grants:
    return publish(*(f"{API}.STREAM.UPDATE.{stream}" for stream in streams))


def look_at_streams(*streams: str) -> Grants:
    """Which stream holds a subject, its bounds, how much it holds."""
    return publish(f"{API}.STREAM.NAMES", *(f"{API}.STREAM.INFO.{stream}" for stream in streams))


def read(stream: str, *subjects: str) -> Grants:
    """The message stored on a subject that matches one of `subjects`; in a cluster, where the
    stream's leader is asked and the subject is not part of the question, on any."""
    direct = (f"{API}.DIRECT.GET.{stream}.{subject}" for subject in subjects)
    return publish(f"{API}.STREAM.MSG.GET.{stream}", *direct)


def consume(stream: str, *consumers: str) -> Grants:
    """Pull from durable consumers, and settle what was pulled. Deleting by sequence is how a
    delivery is settled that the server forgot when it was killed."""
    wanted = [f"{API}.STREAM.MSG.DELETE.{stream}"]
    for name in consumers:
        wanted += [
            f"{API}.CONSUMER.CREATE.{stream}.{name}",
            f"{API}.CONSUMER.INFO.{stream}.{name}",
            f"{API}.CONSUMER.MSG.NEXT.{stream}.{name}",
            f"$JS.ACK.{stream}.{name}.>",
        ]
    return publish(*wanted)


def read_bucket(bucket: str) -> Grants:
    stream, keys = bucket_stream(bucket), f"{bucket_subject(bucket)}>"
    return look_at_streams(stream) + read(stream, keys)


def write_bucket(bucket: str) -> Grants:
    return read_bucket(bucket) + publish(f"{bucket_subject(bucket)}>")


def make_bucket(*buckets: str) -> Grants:
    return make_streams(*map(bucket_stream, buckets))


def change_bucket(*buckets: str) -> Grants:
    return change_streams(*map(bucket_stream, buckets))
