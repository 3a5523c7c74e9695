"""The images of an edit: files of a form, or texts of a JSON body. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.gateway.openai.data_urls import file_of, is_text
from services.gateway.openai.fields import FILE_FIELDS, IMAGE_ALIASES
from services.gateway.openai.kinds.generation import AS_TEXT
from services.gateway.openai.refusals import InvalidField, Shown, in_json
from shared.errors import InvalidRequest

IMAGE_FIELDS: Final = (*FILE_FIELDS, *IMAGE_ALIASES)
ALLOWED: Final = f"{AS_TEXT}; none is fetched"
_IN_OBJECTS: Final = ("image_url", "url", "b64_json")
"""What holds the text where an image is an object, as OpenAI's API has it."""


@dataclass(frozen=True, slots=True)
class Edit:
    """The files of an edit."""

    image: bytes
    mask: bytes | None

    @staticmethod
    def of(files: Mapping[str, Sequence[bytes]]) -> "Edit":
        """Raises `InvalidRequest` unless there is one image, and no more than one mask."""
        found: dict[str, list[bytes]] = {name: [] for name in FILE_FIELDS}
        for name, contents in files.items():
            found[IMAGE_ALIASES.get(name, name)] += contents
        for name, least in (("image", 1), ("mask", 0)):
            count = len(found[name])
            if not least <= count <= 1:
                sent = f"{count} files" if count else "a missing file"
                raise InvalidRequest(name, Shown(sent), FILE_FIELDS[name])
        mask = next(iter(found["mask"]), None)
        image = _sent("image", found["image"][0])
        return Edit(image, None if mask is None else _sent("mask", mask))


def files_of(images: Mapping[str, object]) -> dict[str, list[bytes]]:
    """By field, the contents of `images`: texts, objects that hold one, or lists of these. Raises
    `InvalidRequest`."""
    return {name: list(_files(name, value)) for name, value in images.items()}


def _files(name: str, value: object) -> Iterator[bytes]:
    match value:
        case None | "":
            return
        case str():
            yield file_of(name, value, ALLOWED)
        case list():
            for one in value:
                yield from _files(name, one)
        case dict() if len(value) == 1 and next(iter(value)) in _IN_OBJECTS:
            yield from _files(name, next(iter(value.values())))
        case _:
            raise InvalidField(name, in_json(value), ALLOWED)


def _sent(name: str, content: bytes) -> bytes:
    """The file itself; some clients send its text in its place."""
    if not is_text(content):
        return content
    return file_of(name, content.decode("latin-1"), f"{FILE_FIELDS[name]}; no address is fetched")
