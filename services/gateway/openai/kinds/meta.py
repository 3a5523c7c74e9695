"""What is said about a field, as msgspec keeps it: `extra["allowed"]` for errors, and a description
with the same words for `/openapi.json`."""

from typing import Any, get_args

from msgspec import Meta


def described(about: str, allowed: str) -> Meta:
    return Meta(description=sentence(about, allowed), extra={"allowed": allowed})


def number(about: str, least: int, most: int, kind: str = "a whole number") -> Meta:
    allowed = f"{kind} from {least} to {most}"
    return Meta(description=sentence(about, allowed), extra={"allowed": allowed}, ge=least, le=most)


def text(about: str, least: int, most: int) -> Meta:
    allowed = f"text of {least} to {most} characters"
    return Meta(
        description=sentence(about, allowed),
        extra={"allowed": allowed},
        min_length=least,
        max_length=most,
    )


def metadata_of(hint: Any) -> tuple[Meta, ...]:
    """Of `Annotated[kind, meta]`, or of `Annotated[kind, meta] | None`."""
    annotated = hint if hasattr(hint, "__metadata__") else get_args(hint)[0]
    found: tuple[Meta, ...] = annotated.__metadata__
    return found


def allowed_of(hint: Any) -> str:
    [own, *_] = metadata_of(hint)
    return str((own.extra or {})["allowed"])


def sentence(about: str, allowed: str) -> str:
    return f"{about} Allowed: {allowed}."


def alias_of(name: str, kind: Any) -> Meta:
    """Of the field `name`, which is of this (annotated) `kind`."""
    about = sentence(f"Another name of {name}.", allowed_of(kind))
    return Meta(description=about, extra={"alias_of": name})


def image_alias_of(name: str) -> Meta:
    allowed = f"what {name} allows"
    about = sentence(f"Another name of {name}.", allowed)
    return Meta(description=about, extra={"allowed": allowed})
