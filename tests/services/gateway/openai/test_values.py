"""One rule for values, however a client writes them: in JSON as in forms."""

import base64
import json
from typing import Any

import pytest

from services.gateway.openai.edit_images import Edit
from services.gateway.openai.fields import ImagesRequest
from services.gateway.openai.parsing import parse, parse_edit, parse_json_edit
from shared.errors import InvalidRequest
from tests.helpers.pictures import file, picture

PNG = file(picture())
TEXT = base64.b64encode(PNG).decode()


def read(**fields: Any) -> ImagesRequest:
    return parse(json.dumps({"prompt": "a red circle"} | fields).encode())


SAME: list[tuple[dict[str, Any], str, object]] = [
    ({"n": "2"}, "n", 2),
    ({"n": 2.0}, "n", 2),
    ({"n": " 2 "}, "n", 2),
    ({"seed": "7"}, "seed", 7),
    ({"seed": "-1"}, "seed", -1),
    ({"steps": "20"}, "num_inference_steps", 20),
    ({"cfg_scale": "3.5"}, "guidance_scale", 3.5),
    ({"deadline": "60"}, "deadline", 60.0),
    ({"stream": "true"}, "stream", True),
    ({"stream": "False"}, "stream", False),
    ({"stream": 1}, "stream", True),
    ({"n": ""}, "n", None),
    ({"n": "null"}, "n", None),
    ({"seed": "undefined"}, "seed", None),
    ({"stream": "None"}, "stream", None),
    ({"model": ""}, "model", None),
    ({"size": ""}, "size", None),
    ({"quality": "HD"}, "quality", "hd"),
    ({"quality": "null"}, "quality", None),
    ({"output_format": "JPG"}, "output_format", "jpeg"),
    ({"output_format": "image/webp"}, "output_format", "webp"),
    ({"response_format": {"type": "url"}}, "response_format", "url"),
    ({"response_format": "base64"}, "response_format", "b64_json"),
    ({"negative_prompt": ""}, "negative_prompt", ""),
    ({"negative": "null"}, "negative_prompt", "null"),
    ({"user": " me "}, "user", " me "),
    ({"extra_body": {"steps": "7"}}, "num_inference_steps", 7),
    ({"extra_body": {"steps": "7"}, "steps": 7}, "num_inference_steps", 7),
    ({"extra_body": None}, "extra_body", None),
    ({"output_quality": 80, "output_format": "webp"}, "output_compression", 80),
    ({"output_quality": 80}, "output_compression", None),
]


@pytest.mark.parametrize(("sent", "field", "value"), SAME)
def test_a_value_is_read_as_what_it_says(sent: dict[str, Any], field: str, value: object) -> None:
    assert getattr(read(**sent), field) == value


@pytest.mark.parametrize(
    ("sent", "field", "value"),
    [one for one in SAME if isinstance(next(iter(one[0].values())), str)],
)
def test_a_form_reads_it_in_the_same_way(sent: dict[str, Any], field: str, value: object) -> None:
    texts = {name: str(one) for name, one in sent.items()}
    assert getattr(parse_edit({"prompt": "a"} | texts), field) == value


def test_lists_may_be_json_texts() -> None:
    loras = read(loras='[{"name": "neon", "scale": "0.5"}]').loras
    assert loras is not None
    assert [(one.name, one.scale) for one in loras] == [("neon", 0.5)]
    assert parse_edit({"prompt": "a", "extra_body": '{"steps": 7}'}).num_inference_steps == 7


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        (b'{"prompt": "a", "n": "two"}', "n", '"two" is not allowed; allowed: a whole number'),
        (b'{"prompt": "a", "n": "2.5"}', "n", '"2.5" is not allowed'),
        (b'{"prompt": "a", "n": true}', "n", "true is not allowed"),
        (b'{"prompt": "a", "stream": "on"}', "stream", "true or false"),
        (b'{"prompt": "a", "stream": 2}', "stream", "2 is not allowed"),
        (b'{"prompt": "a", "response_format": {"type": "json"}}', "response_format", '"b64_json"'),
        (b'{"prompt": "a", "output_format": "gif"}', "output_format", '"gif" is not allowed'),
        (b'{"prompt": "a", "n": 1, "n": 2}', "n", "this field, twice, is not allowed"),
        (b'{"prompt": "a", "style": {"b": 1, "b": 1}}', "b", "this field, twice,"),
        (b'{"prompt": "a", "n": 1, "extra_body": {"n": 2}}', "n", "what extra_body says, 2, or"),
        (b'{"prompt": "a", "extra_body": {"n": 99}}', "n", "99 is not allowed; allowed: a whole"),
        (b'{"prompt": "a", "extra_body": [1]}', "extra_body", "[1] is not allowed"),
        (b'{"prompt": "a", "extra_body": {"extra_body": {}}}', "extra_body", "an object of fields"),
        (b'{"prompt": "a", "extra_body": {"stpes": 3}}', "stpes", "this field is not allowed"),
        (b'{"prompt": "a", "n": NaN}', "body", "one JSON object in UTF-8"),
        (b'{"prompt": "\\ud800"}', "body", "one JSON object in UTF-8"),
        (b'{"prompt": "a"} x', "body", "one JSON object in UTF-8"),
        ('{"prompt": "a"}'.encode("utf-16"), "body", "one JSON object in UTF-8"),
        (b'{"prompt": "a", "n": "' + b"9" * 5000 + b'"}', "n", "a whole number from 1 to 10"),
        (b'{"prompt": "a", "n": ' + b"9" * 5000 + b"}", "n", "a whole number from 1 to 10"),
        (
            b'{"prompt": "a", "output_quality": 80, "output_compression": 70,'
            b' "output_format": "jpeg"}',
            "output_quality",
            "70, as output_compression says",
        ),
    ],
)
def test_what_is_no_value_is_refused_by_name(body: bytes, param: str, told: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse(body)
    assert raised.value.fields["field"] == param
    assert told in raised.value.message


def test_a_byte_order_mark_is_no_part_of_a_body() -> None:
    assert parse('\ufeff{"prompt": "é"}'.encode()).prompt == "é"


@pytest.mark.parametrize(
    "fields",
    [
        {"image": TEXT},
        {"image": [f"data:image/png;base64,{TEXT}"]},
        {"images": [{"image_url": f"data:image/png;base64,{TEXT}"}]},
        {"image_url": {"url": f"data:image/png;base64,{TEXT}"}, "mask": None},
        {"input_image": {"b64_json": TEXT}, "mask_url": "", "image_urls": []},
    ],
)
def test_an_edit_may_be_json_with_its_pictures_as_texts(fields: dict[str, Any]) -> None:
    wanted, files = parse_json_edit(json.dumps({"prompt": "a", "steps": "7"} | fields).encode())
    assert wanted.num_inference_steps == 7
    edit = Edit.of(files)
    assert (edit.image, edit.mask) == (PNG, None)


@pytest.mark.parametrize(
    ("fields", "param", "told"),
    [
        ({}, "image", "a missing file"),
        ({"image": [TEXT, TEXT]}, "image", "2 files"),
        ({"image": TEXT, "image_url": TEXT}, "image", "2 files"),
        ({"image": "https://example.org/a.png"}, "image", "none is fetched"),
        ({"image": 5}, "image", "5 is not allowed"),
        ({"images": [{"file_id": "file-1"}]}, "images", "in base64, bare or as a data URL"),
        ({"image": TEXT, "mask_url": "no base64!"}, "mask_url", "in base64"),
        ({"image": TEXT, "strength": "much"}, "strength", '"much" is not allowed'),
    ],
)
def test_what_is_no_picture_of_an_edit_is_refused_by_name(
    fields: dict[str, Any], param: str, told: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        Edit.of(parse_json_edit(json.dumps({"prompt": "a"} | fields).encode())[1])
    assert raised.value.fields["field"] == param
    assert told in raised.value.message


@pytest.mark.parametrize("content", [TEXT.encode(), f"data:image/png;base64,{TEXT}".encode()])
def test_a_form_may_have_a_picture_as_text(content: bytes) -> None:
    assert Edit.of({"image_url": [content], "mask": []}) == Edit(PNG, None)
    with pytest.raises(InvalidRequest, match=r"image: .* no address is fetched"):
        Edit.of({"image": [b"https://example.org/a.png"]})
