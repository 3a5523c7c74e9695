"""`POST /v1/images/edits`, with the official `openai` client and without it."""

import base64
import io
import json
from typing import Any

import numpy as np
import openai
import pytest
from openai.types import ImageEditCompletedEvent, ImageEditPartialImageEvent
from PIL import Image

from services.gateway.http.body import MAX_BODY_BYTES
from shared.jobs import edits as limits
from shared.jobs.travel import MAX_IMAGE_BYTES, MAX_UPLOAD_BYTES
from shared.media.reader import MAX_PIXELS
from tests.conftest import run
from tests.helpers.pictures import chunk, file, mask, picture, with_chunks, with_segments
from tests.services.gateway.server import Answer, Server, server

PROMPT = "a large red circle left on white"
EDITS = "/v1/images/edits"

Part = tuple[str, bytes, str | None]
"""Name, content, and file name of a part."""


def body_of(parts: list[Part]) -> bytes:
    text = b""
    for name, content, filename in parts:
        text += b'--edge\r\nContent-Disposition: form-data; name="%s"' % name.encode()
        text += b'; filename="%s"' % filename.encode() if filename else b""
        text += b"\r\n\r\n" + content + b"\r\n"
    return text + b"--edge--\r\n"


async def post(here: Server, body: bytes, kind: str = "form-data; boundary=edge") -> Answer:
    headers = {"Content-Type": f"multipart/{kind}"}
    return await here.ask("POST", EDITS, data=io.BytesIO(body), headers=headers)


async def edited(here: Server, *more: Part, without: str = "", **fields: str) -> Answer:
    """The answer to an edit of a picture, with these parts, and text fields, more."""
    texts: dict[str, str] = {"prompt": PROMPT} | fields
    parts: list[Part] = [(name, text.encode(), None) for name, text in texts.items()]
    parts += [("image", file(picture()), "image.png")] if without != "image" else []
    return await post(here, body_of([*parts, *more]))


def test_the_openai_client_edits_an_image() -> None:
    async def scenario() -> None:
        async with server() as here, here.openai() as client:
            answer = await client.images.edit(
                image=file(picture()),
                mask=file(mask()),
                prompt=PROMPT,
                model="pocket-sdxl",
                n=2,
                output_format="webp",
                output_compression=80,
                quality="low",
                background="auto",
                input_fidelity="high",
                user="somebody",
                extra_body={
                    "seed": 7,
                    "guidance_scale": 2.5,
                    "strength": 0.5,
                    "sampler": "ddim",
                    "negative_prompt": "blue",
                    "controls": json.dumps(
                        [{"model": "edges", "image": base64.b64encode(b"picture").decode()}]
                    ),
                },
            )
            assert answer.data is not None
            opened = [
                Image.open(io.BytesIO(base64.b64decode(d.b64_json or ""))) for d in answer.data
            ]
            assert [(one.size, one.format) for one in opened] == [((128, 128), "WEBP")] * 2
            [spec] = here.line.specs.values()
            assert spec.edit is not None
            assert (spec.edit.strength, spec.edit.mask, spec.edit.mask_mode) == (
                0.5,
                "file",
                "exact",
            )
            assert (spec.seed, spec.guidance, spec.sampler) == (7, 2.5, "ddim")
            assert (spec.negative_prompt, spec.user) == ("blue", "somebody")
            assert [control.model for control in spec.controls] == ["edges"]

    run(scenario())


def test_the_openai_client_streams_an_edit() -> None:
    async def scenario() -> None:
        async with server() as here, here.openai() as client:
            stream = await client.images.edit(
                image=[("picture.jpg", file(picture(), "JPEG"))],
                prompt=PROMPT,
                stream=True,
                partial_images=2,
            )
            events = [event async for event in stream]
            assert [type(event) for event in events] == [
                ImageEditPartialImageEvent,
                ImageEditPartialImageEvent,
                ImageEditCompletedEvent,
            ]
            [spec] = here.line.specs.values()
            assert spec.edit is not None
            assert (spec.edit.mask, spec.edit.strength) == ("none", limits.IMAGE_STRENGTH)

    run(scenario())


def test_an_image_with_transparent_pixels_is_its_own_mask_and_an_opaque_one_is_not() -> None:
    async def scenario() -> None:
        see_through = picture(mode="RGBA")
        see_through.paste((0, 0, 0, 0), (0, 0, 40, 40))
        half = picture(mode="RGBA")
        half.putalpha(1)
        async with server() as here, here.openai() as client:
            for image, expected in ((see_through, "alpha"), (half, "none")):
                await client.images.edit(image=file(image), prompt=PROMPT)
                spec = here.line.specs.popitem()[1]
                assert spec.edit is not None
                assert spec.edit.mask == expected

    run(scenario())


def test_the_result_has_the_images_size_as_far_as_the_model_can_draw_it() -> None:
    async def scenario() -> None:
        async with server() as here:
            for size, expected in (
                ((64, 96), "64x96"),
                ((101, 50), "104x48"),
                ((1024, 512), "256x128"),
                ((2, 3000), "8x256"),
            ):
                image: Part = ("image", file(picture(size)), "a.png")
                answer = await edited(here, image, without="image")
                assert answer.json["size"] == expected
            answer = await edited(here, size="32x40")
            assert answer.json["size"] == "32x40"

    run(scenario())


@pytest.mark.parametrize(
    ("fields", "parts", "param", "reason"),
    [
        ({"strength": "0"}, [], "strength", "above 0, up to 1"),
        ({"strength": "1.1"}, [], "strength", "above 0, up to 1"),
        ({"strength": "nan"}, [], "strength", "above 0, up to 1"),
        ({"strength": "much"}, [], "strength", "above 0, up to 1"),
        ({"strength": "0.1", "num_inference_steps": "9"}, [], "strength", "at least 0.1111"),
        ({"mask_mode": "cached"}, [], "mask_mode", "exact, for the model pocket-sdxl"),
        ({"mask_mode": "greedy"}, [], "mask_mode", "one of exact, cached"),
        ({"n": "0"}, [], "n", "from 1 to 10"),
        ({"seed": "x"}, [], "seed", "a whole number"),
        ({"size": "100x100"}, [], "size", "a multiple of 8"),
        ({"loras": "neon"}, [], "loras", "a JSON text"),
        ({"controls": '{"model": 1}'}, [], "controls", "a list"),
        ({"markup": "1"}, [], "markup", "only image, mask, prompt"),
        ({"image_url": "http://x/"}, [], "image", "2 files"),
        ({}, [("prompt", b"again", None)], "prompt", "once"),
        ({}, [("seed", b"\xff", None)], "seed", "UTF-8"),
        ({}, [("image[]", file(picture()), "b.png")], "image", "2 files"),
        ({}, [("mask", file(mask()), "m.png")] * 2, "mask", "2 files"),
        ({}, [("mask", file(mask((64, 128))), "m.png")], "mask", "128x128 pixels, as the image"),
        ({}, [("mask", file(picture()), "m.png")], "mask", "white there and black elsewhere"),
        ({}, [("mask", file(mask(shown=None)), "m.png")], "mask", "fully transparent"),
        ({}, [("mask", file(mask(), "GIF"), "m.gif")], "mask", "a whole png"),
        ({}, [("mask", b"", "m.png")], "mask", "a whole png"),
    ],
)
def test_a_wrong_field_is_named_with_what_is_allowed(
    fields: dict[str, str], parts: list[Part], param: str, reason: str
) -> None:
    async def scenario() -> None:
        async with server() as here:
            answer = await edited(here, *parts, **fields)
            assert (answer.status, answer.error["param"]) == (400, param), answer.error
            assert reason in answer.error["message"]
            assert not here.line.specs

    run(scenario())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "a whole png, jpeg or webp"),
        (b"no image", "a whole png, jpeg or webp"),
        (file(picture())[:-40], "a whole png, jpeg or webp"),
        (file(picture(), "BMP"), "a whole png, jpeg or webp"),
        (file(Image.new("1", (8193, 8192))), f"at most {MAX_PIXELS} pixels"),
        (file(Image.new("1", (14_000, 14_000))), f"at most {MAX_PIXELS} pixels"),
        (bytes(MAX_IMAGE_BYTES + 1), "a whole png, jpeg or webp"),
        (bytes(MAX_UPLOAD_BYTES + 1), f"at most {MAX_UPLOAD_BYTES} bytes"),
    ],
)
def test_an_image_that_is_none_or_too_large_is_refused_by_name(content: bytes, reason: str) -> None:
    async def scenario() -> None:
        async with server() as here:
            answer = await edited(here, ("image", content, "i.png"), without="image")
            assert (answer.status, answer.error["param"]) == (400, "image"), answer.error
            assert reason in answer.error["message"]

    run(scenario())


def test_a_photograph_larger_than_a_message_is_fitted_before_it_travels() -> None:
    async def scenario() -> None:
        noise = np.random.default_rng(0).integers(0, 256, (2400, 3200, 3), dtype=np.uint8)
        photo = file(Image.fromarray(noise), "JPEG", quality=95)
        assert len(photo) > MAX_IMAGE_BYTES
        shown = file(Image.new("L", (3200, 2400), 255))
        in_text = base64.b64encode(photo)
        async with server() as here:
            for image in (photo, b"data:image/jpeg;base64," + in_text):
                parts: list[Part] = [("image", image, "i.jpg"), ("mask", shown, "m.png")]
                answer = await edited(here, *parts, without="image")
                assert (answer.status, answer.json["size"]) == (200, "256x192")
            controls = [{"model": "edges", "image": in_text.decode()}]
            drawn = await here.draw(controls=controls)
            assert (drawn.status, drawn.json["size"]) == (200, "128x128")

    run(scenario())


def test_damaged_metadata_is_no_reason_to_refuse_a_picture() -> None:
    async def scenario() -> None:
        torn = with_chunks(file(picture()), chunk(b"eXIf", b"MM"), chunk(b"iCCP", b"a\0\0torn"))
        photograph = with_segments(file(picture(), "JPEG"), b"\xff\xe1\0\x0cExif\0\0MM\0*")
        masked = with_chunks(file(mask()), b"\0\0\0\x05" + chunk(b"tEXt", b"a\0b")[4:])
        async with server() as here:
            for image in (torn, photograph):
                answer = await edited(
                    here,
                    ("image", image, "i.png"),
                    ("mask", masked, "m.png"),
                    without="image",
                )
                assert answer.status == 200, answer.error

    run(scenario())


def test_a_data_url_in_the_place_of_a_file_is_read() -> None:
    async def scenario() -> None:
        async with server() as here:
            url = b"data:image/jpeg;base64," + base64.b64encode(file(picture((64, 96))))
            answer = await edited(here, ("image", url, None), without="image")
            assert answer.json["size"] == "64x96"
            torn = await edited(here, ("image", b"data:image/png;base64,*", None), without="image")
            assert (torn.status, torn.error["param"]) == (400, "image")

    run(scenario())


def test_a_form_without_image_or_prompt_says_so() -> None:
    async def scenario() -> None:
        async with server() as here:
            nothing = await edited(here, without="image")
            assert nothing.error["param"] == "image"
            assert "missing" in nothing.error["message"]
            silent = await post(here, body_of([("image", file(picture()), "i.png")]))
            assert silent.error["param"] == "prompt"

    run(scenario())


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "form-data; boundary=edge"),
        (b"--edge", "form-data; boundary=edge"),
        (b"--edge\r\n\r\nx\r\n--edge--", "form-data; boundary=edge"),
        (b"no boundary at all\r\n" * 9, "form-data; boundary=edge"),
        (body_of([("prompt", b"x", None)]), "form-data"),
        (body_of([("prompt", b"x", None)]), "form-data; boundary=" + "x" * 99),
        (body_of([("prompt", b"x", None)])[:-9], "form-data; boundary=edge"),
        (
            b'--edge\r\nContent-Disposition: form-data; name="prompt"\r\n'
            b"Content-Type: multipart/mixed; boundary=in\r\n\r\n--in--\r\n--edge--\r\n",
            "form-data; boundary=edge",
        ),
        (b"--edge\r\n" + b"X: y\r\n" * 500 + b"\r\n\r\n--edge--", "form-data; boundary=edge"),
    ],
)
def test_a_broken_form_is_refused(body: bytes, kind: str) -> None:
    async def scenario() -> None:
        async with server() as here:
            answer = await post(here, body, kind)
            assert answer.status == 400, answer.body
            assert "allowed: " in answer.error["message"]

    run(scenario())


def test_a_form_that_is_too_large_or_none_is_refused() -> None:
    async def scenario() -> None:
        async with server() as here:
            large = body_of([("image", bytes(MAX_BODY_BYTES + 1), "i.png")])
            answer = await post(here, large)
            assert (answer.status, answer.error["code"]) == (413, "request_too_large")
            plain: Any = await here.ask("POST", EDITS, json={"prompt": PROMPT})
            assert (plain.status, plain.error["param"]) == (400, "image")
            text: Any = await here.ask("POST", EDITS, data=b"a prompt")
            assert text.status == 415
            assert "multipart/form-data or application/json" in text.error["message"]

    run(scenario())


def test_a_field_for_a_file_that_was_not_filled_in_is_left_out() -> None:
    async def scenario() -> None:
        async with server() as here:
            empty = (
                b'--edge\r\nContent-Disposition: form-data; name="mask"; filename=""\r\n\r\n\r\n'
            )
            parts: list[Part] = [("prompt", PROMPT.encode(), None)]
            parts.append(("image", file(picture()), "image.png"))
            answer = await post(here, empty + body_of(parts))
            assert answer.status == 200, answer.body

    run(scenario())


def test_an_edit_in_json_is_drawn() -> None:
    async def scenario() -> None:
        async with server() as here:
            text = base64.b64encode(file(picture((64, 96)))).decode()
            sent: Any = {
                "prompt": PROMPT,
                "images": [{"image_url": f"data:;base64,{text}"}],
                "n": "1",
            }
            answer = await here.ask("POST", EDITS, json=sent)
            assert (answer.status, answer.json["size"]) == (200, "64x96")
            [spec] = here.line.specs.values()
            assert spec.edit is not None

    run(scenario())


def test_an_edit_is_described() -> None:
    async def scenario() -> None:
        async with server() as here:
            document = (await here.ask("GET", "/openapi.json")).json
            content = document["paths"][EDITS]["post"]["requestBody"]["content"]
            assert set(content) == {"multipart/form-data", "application/json"}
            form = document["components"]["schemas"]["EditsRequest"]
            assert form["properties"]["mask"]["format"] == "binary"
            assert set(form["required"]) == {"prompt", "image"}

    run(scenario())


def test_the_openai_client_names_the_wrong_field() -> None:
    async def scenario() -> None:
        async with server() as here, here.openai() as client:
            with pytest.raises(openai.BadRequestError) as refused:
                await client.images.edit(
                    image=file(picture()), mask=file(mask((8, 8))), prompt=PROMPT
                )
            assert refused.value.param == "mask"

    run(scenario())
