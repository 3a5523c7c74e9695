"""Subjects and patterns, as NATS defines them: tokens between dots; in a pattern `*` stands for one
token and a last `>` for one or more."""

from typing import Final

from shared.errors import InvalidRequest

MAX_SUBJECT: Final = 1024
"""Characters. A server closes the connection over a subject that does not fit into its control
line (4 KB), where our prefixes and an inbox have to fit as well."""


def check_subject(subject: str) -> None:
    """Raise `InvalidRequest` unless `subject` may be published to."""
    check_pattern(subject)
    if any(token in ("*", ">") for token in subject.split(".")):
        raise InvalidRequest("subject", subject, "a subject without wildcards")


def check_pattern(pattern: str) -> None:
    """Raise `InvalidRequest` unless `pattern` may be listened to."""
    if len(pattern) > MAX_SUBJECT:
        raise InvalidRequest("subject", pattern, f"at most {MAX_SUBJECT} characters")
    tokens = pattern.split(".")
    if not all(tokens) or ">" in tokens[:-1] or any(c.isspace() for c in pattern):
        raise InvalidRequest("subject", pattern, "dot-separated tokens without white space")


def matches(pattern: str, subject: str) -> bool:
    """Whether `subject` (without wildcards) is one of those that `pattern` stands for."""
    expected, tokens = pattern.split("."), subject.split(".")
    if expected[-1] == ">":
        if len(tokens) < len(expected):
            return False
        expected.pop()
    elif len(tokens) != len(expected):
        return False
    return all(want in ("*", got) for want, got in zip(expected, tokens, strict=False))


def overlap(first: str, second: str) -> bool:
    """Whether some subject matches both patterns."""
    left, right = first.split("."), second.split(".")
    for one, other in zip(left, right, strict=False):
        if ">" in (one, other):
            return True
        if one != other and "*" not in (one, other):
            return False
    return len(left) == len(right)
