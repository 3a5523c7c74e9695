"""The base of all errors."""

from typing import Any, ClassVar


class DarkroomError(Exception):
    """Base of all errors of this project. `code` is its stable name on the wire."""

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields
