"""What can be wrong with the environment of a process, or with who asks it."""

from shared.errors.base import DarkroomError


class Unauthorized(DarkroomError):
    """A request to the gateway carries no token, or one that is not known."""

    code = "invalid_api_key"


class Forbidden(DarkroomError):
    """A known token, which does not allow this."""

    code = "permission_denied"


class Misconfigured(DarkroomError):
    """Something outside the code must be changed before this can work; the message says what."""

    code = "misconfigured"


class MemoryBudgetExceeded(Misconfigured):
    """`what` needs `needed` bytes, over this process's budget of `budget`."""

    code = "memory_budget"

    def __init__(self, what: str, needed: int, budget: int) -> None:
        super().__init__(
            f"{what} needs {needed} bytes, over DARKROOM_MEMORY_BUDGET={budget}: raise it, or "
            "serve less from this process",
            what=what,
            needed=needed,
            budget=budget,
        )
