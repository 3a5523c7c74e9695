"""A handle that contradicts itself cannot be made, nor received."""

from math import prod

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tensors.handle import DTYPE_BYTES, ArenaSlot, Buffer, TensorHandle, byte_view

SLOT = ArenaSlot(host="h", arena="a", slot=3, generation=5, offset=4096)
INLINE = TensorHandle(
    dtype="float16",
    shape=(2, 3),
    nbytes=12,
    checksum=0,
    job_id="job",
    attempt=1,
    expires_at=1.0,
    inline=bytes(12),
)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"dtype": "float8"}, "dtype"),
        ({"shape": (-2, -3)}, "negative"),
        ({"shape": (2, 4)}, "nbytes"),
        ({"nbytes": 13}, "nbytes"),
        ({"inline": None}, "exactly one"),
        ({"slot": SLOT}, "exactly one"),
        ({"inline": bytes(11)}, "inline"),
    ],
)
def test_a_contradiction_is_refused(changed: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        msgspec.structs.replace(INLINE, **changed)


def test_a_contradiction_on_the_wire_is_refused() -> None:
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(INLINE))
    sent["nbytes"] = 13
    with pytest.raises(msgspec.ValidationError, match="nbytes"):
        msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=TensorHandle)


def test_a_handle_names_itself() -> None:
    assert INLINE.name == "inline"
    assert msgspec.structs.replace(INLINE, inline=None, slot=SLOT).name == "a/3@5"


@given(
    st.sampled_from(sorted(DTYPE_BYTES)),
    st.lists(st.integers(0, 5), max_size=4),
    st.booleans(),
)
def test_every_consistent_handle_travels(dtype: str, shape: list[int], is_inline: bool) -> None:
    nbytes = prod(shape) * DTYPE_BYTES[dtype]
    handle = TensorHandle(
        dtype=dtype,
        shape=tuple(shape),
        nbytes=nbytes,
        checksum=2**32 - 1,
        job_id="job",
        attempt=1,
        expires_at=1.5,
        slot=None if is_inline else SLOT,
        inline=bytes(nbytes) if is_inline else None,
    )
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(handle), type=TensorHandle) == handle


def test_a_view_of_bytes_needs_the_right_size_and_no_gaps() -> None:
    assert byte_view(memoryview(bytearray(8)), "float32", (2,)).nbytes == 8
    assert byte_view(b"", "float32", (0, 7)).nbytes == 0
    wrong: list[tuple[Buffer, str, tuple[int, ...]]] = [
        (bytes(7), "float32", (2,)),
        (bytes(8), "float8", (8,)),
        (bytes(8), "uint8", (-2, -4)),
        (memoryview(bytes(8))[::2], "uint8", (4,)),
    ]
    for data, dtype, shape in wrong:
        with pytest.raises(ValueError, match=r"data|dtype"):
            byte_view(data, dtype, shape)
