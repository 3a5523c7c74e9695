"""What can be wrong with the bus."""

from shared.errors.base import DarkroomError


class PayloadTooLarge(DarkroomError):
    """A message of `size` bytes for `subject`, over the bus's limit of `limit`."""

    code = "payload_too_large"

    def __init__(self, subject: str, size: int, limit: int) -> None:
        super().__init__(
            f"a message of {size} bytes for {subject} is over the limit of {limit} bytes",
            subject=subject,
            size=size,
            limit=limit,
        )


class RevisionConflict(DarkroomError):
    """A compare-and-set of `key` at `revision` lost: somebody wrote it in between."""

    code = "revision_conflict"
    retryable = True

    def __init__(self, key: str, revision: int) -> None:
        super().__init__(f"{key} is no longer at revision {revision}", key=key, revision=revision)


class BusUnavailable(DarkroomError):
    """The bus, or whoever should answer on `subject`, did not answer in time."""

    code = "bus_unavailable"
    retryable = True

    def __init__(self, subject: str, reason: str) -> None:
        super().__init__(f"{subject}: {reason}", subject=subject, reason=reason)


class NotPermitted(DarkroomError):
    """The bus refused to let us `verb` ("publish" or "subscribe") `subject`."""

    code = "not_permitted"

    def __init__(self, verb: str, subject: str) -> None:
        super().__init__(
            f"the bus does not permit these credentials to {verb} {subject!r}; "
            "services/fleet/access/permissions.py says what each service may do",
            verb=verb,
            subject=subject,
        )
