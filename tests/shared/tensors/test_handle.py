"""A handle that contradicts itself cannot be made, nor received."""

from math import prod

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.messages.handle import DTYPE_BYTES, ArenaSlot, Buffer, TensorHandle, byte_view

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
        ({"shape": (2, 3) + (1,) * 7}, "shape: 9 extents are over the limit of 8"),
        ({"shape": (0, 2**60), "nbytes": 0, "inline": b""}, "shape: .* over the limit"),
        ({"shape": (2**32, 2**32), "nbytes": 0}, "shape: .* over the limit"),
        ({"checksum": -1}, "checksum: -1 is not from 0 to 4294967295"),
        ({"checksum": 2**32}, "checksum: 4294967296"),
        ({"attempt": -1}, "attempt: -1"),
        ({"expires_at": float("nan")}, "expires_at: nan is no time"),
        ({"expires_at": float("inf")}, "expires_at: inf is no time"),
        ({"job_id": "j" * 129}, "job_id: 129 characters"),
    ],
)
def test_a_contradiction_is_refused(changed: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        msgspec.structs.replace(INLINE, **changed)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"slot": -1}, "slot: -1"),
        ({"slot": 2**63}, "slot: 9223372036854775808"),
        ({"generation": -1}, "generation: -1"),
        ({"offset": 2**64}, "offset: 18446744073709551616"),
        ({"host": "h" * 129}, "host: 129 characters"),
        ({"arena": "a" * 129}, "arena: 129 characters"),
        ({"address": "a" * 129}, "address: 129 characters"),
    ],
)
def test_a_place_that_no_arena_has_is_refused_by_field(
    changed: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        msgspec.structs.replace(SLOT, **changed)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=16),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)


@given(st.sampled_from(sorted(TensorHandle.__struct_fields__)), ANYTHING)
def test_whatever_a_field_holds_the_handle_is_read_or_refused(field: str, value: object) -> None:
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(INLINE))
    sent[field] = value
    try:
        received = msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=TensorHandle)
    except msgspec.ValidationError:
        return
    assert received.nbytes == len(received.inline or b"")
    assert received.nbytes == prod(received.shape) * DTYPE_BYTES[received.dtype]


@given(st.sampled_from(sorted(ArenaSlot.__struct_fields__)), ANYTHING)
def test_whatever_a_place_holds_it_is_read_or_refused(field: str, value: object) -> None:
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(SLOT))
    sent[field] = value
    try:
        received = msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=ArenaSlot)
    except msgspec.ValidationError:
        return
    assert min(received.slot, received.generation, received.offset) >= 0


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
