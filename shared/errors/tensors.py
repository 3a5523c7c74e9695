"""What can be wrong with tensors, and where they lie."""

from shared.errors.base import DarkroomError


class HandleLost(DarkroomError):
    """The bytes behind a handle cannot be had any more; whoever made them has to run again."""

    code = "handle_lost"
    retryable = True

    def __init__(self, handle: str, reason: str) -> None:
        super().__init__(f"tensor {handle} is lost: {reason}", handle=handle, reason=reason)


class NotFinite(DarkroomError):
    """What was computed became NaN or infinite: what it was computed from was, or the dtype is too
    narrow."""

    code = "not_finite"


class ArenaFull(DarkroomError):
    """An arena of `capacity` bytes, `in_use` of them taken, has no room for `requested` bytes."""

    code = "arena_full"
    retryable = True

    @property
    def for_good(self) -> bool:
        """Whether an empty arena would not do either."""
        return bool(self.fields["requested"] > self.fields.get("capacity", float("inf")))

    def __init__(self, arena: str, requested: int, in_use: int, capacity: int) -> None:
        super().__init__(
            f"arena {arena} has no room for {requested} bytes: {in_use} of {capacity} are in use "
            "(DARKROOM_ARENA_BYTES)",
            arena=arena,
            requested=requested,
            in_use=in_use,
            capacity=capacity,
        )


class TmpfsFull(ArenaFull):
    """The file system at `directory`, with `free` bytes left, cannot hold `requested` more."""

    code = "tmpfs_full"

    def __init__(self, arena: str, requested: int, directory: str, free: int) -> None:
        DarkroomError.__init__(
            self,
            f"the file system at {directory} has no room for {requested} bytes of arena {arena}: "
            f"{free} are free; enlarge it, or configure smaller arenas",
            arena=arena,
            requested=requested,
            directory=directory,
            free=free,
        )


class NoRoom(DarkroomError):
    """Tier `tier` of `bound` bytes, of which `pinned` have to stay, has no room for `needed`."""

    code = "no_room"
    retryable = True

    def __init__(self, tier: str, needed: int, bound: int, pinned: int) -> None:
        super().__init__(
            f"{tier} has no room for {needed} bytes: {pinned} of its {bound} bytes have to stay",
            tier=tier,
            needed=needed,
            bound=bound,
            pinned=pinned,
        )
