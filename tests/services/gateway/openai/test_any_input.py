"""Whatever is posted, the answer is an image or a refusal that names what is wrong: never a 500."""

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.gateway.openai.fields import ALLOWED
from tests.conftest import HANG_SECONDS, run
from tests.services.gateway.server import server

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)
plausible: dict[str, st.SearchStrategy[Any]] = {
    "prompt": st.text(min_size=1, max_size=40),
    "model": st.sampled_from(["pocket-sdxl", "dall-e-3"]),
    "n": st.integers(0, 3),
    "size": st.sampled_from(["auto", "64x64", "8x8", "65x64", "0x0", "x", "9999x9999"]),
    "quality": st.sampled_from(["auto", "low", "hd"]),
    "response_format": st.sampled_from(["url", "b64_json"]),
    "output_format": st.sampled_from(["png", "jpeg", "webp"]),
    "output_compression": st.integers(-1, 101),
    "stream": st.booleans(),
    "partial_images": st.integers(0, 4),
    "num_inference_steps": st.integers(0, 8),
    "guidance_scale": st.floats(-1, 101),
    "sampler": st.sampled_from(["euler", "ddim", "none"]),
    "seed": st.integers(-1, 2**64),
}
OPTIONAL = sorted(set(ALLOWED) - {"prompt"})


def requests(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """A prompt and these fields, mostly plausible, so that some requests are served."""
    values = {name: plausible.get(name, json_values) for name in names}
    return st.fixed_dictionaries({"prompt": plausible["prompt"], **values})


served = st.lists(st.sampled_from(OPTIONAL), max_size=3, unique=True).flatmap(requests)
strange = st.builds(
    dict.__or__,
    served,
    st.dictionaries(st.sampled_from(list(ALLOWED)) | st.text(max_size=9), json_values, max_size=2),
)
bodies = (served | strange | json_values).map(json.dumps).map(str.encode) | st.binary(max_size=40)


@contextmanager
def gateway() -> Iterator[str]:
    """A server in another thread, since hypothesis is synchronous. Yields its address."""
    started = threading.Event()
    shared: dict[str, Any] = {}

    async def serve() -> None:
        shared["loop"], shared["stop"] = asyncio.get_running_loop(), asyncio.Event()
        async with server() as here:
            shared["address"] = here.gateway.address
            started.set()
            await shared["stop"].wait()

    thread = threading.Thread(target=run, args=(serve(),))
    thread.start()
    try:
        assert started.wait(HANG_SECONDS)
        yield shared["address"]
    finally:
        shared["loop"].call_soon_threadsafe(shared["stop"].set)
        thread.join()


def test_no_body_is_answered_with_an_internal_error() -> None:
    with gateway() as address:
        connection = http.client.HTTPConnection(address, timeout=HANG_SECONDS)

        @settings(
            max_examples=200,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        )
        @given(bodies)
        def post(body: bytes) -> None:
            connection.request(
                "POST", "/v1/images/generations", body, {"Content-Type": "application/json"}
            )
            reply = connection.getresponse()
            answer = reply.read()
            assert reply.status in (200, 400), answer
            if reply.status == 400:
                error = json.loads(answer)["error"]
                assert error["type"] == "invalid_request_error"
                assert "allowed: " in error["message"]

        try:
            post()
        finally:
            connection.close()
