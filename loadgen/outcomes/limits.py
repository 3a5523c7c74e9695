"""What bounds a run."""

import msgspec


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`in_flight`: shots sent and not ended; one more is not sent, and `lost` as
    `in_flight_limit`. `timeout`: seconds a shot may take after it was sent. `drain`: seconds that
    what is in flight may take after the last shot was sent. What exceeds either is a `timeout`,
    named `timeout` or `drain`."""

    in_flight: int = 1024
    timeout: float = 600.0
    drain: float = 120.0
