"""Every `Transport` keeps the promises of its docstrings."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import ArenaFull, HandleLost
from shared.messages.handle import DTYPE_BYTES, INLINE_LIMIT, Buffer, TensorHandle
from shared.tensors.reader import ArenaReader
from shared.tensors.tcp import serving
from shared.tensors.torch_io import get_tensor, put_tensor
from shared.tensors.transport import Transport
from tests.helpers.memory_transport import MemoryTransport

CAPACITY = 8 << 20
BIG = INLINE_LIMIT + 1
NOW = 1_000.0

Pair = tuple[Transport, Transport]
"""Two processes' ends: either gets what the other put."""


def arenas(directory: Path, stack: ExitStack) -> Pair:
    first, second = (
        Transport.create(directory / "arenas", CAPACITY, "test", clock=lambda: NOW)
        for _ in range(2)
    )
    stack.callback(first.close)
    stack.callback(second.close)
    return first, second


def memories(directory: Path, stack: ExitStack) -> Pair:
    store: dict[tuple[str, int], tuple[TensorHandle, bytes]] = {}
    first, second = (
        MemoryTransport(name, CAPACITY, store, clock=lambda: NOW) for name in ("first", "second")
    )
    return first, second


def hosts(directory: Path, stack: ExitStack) -> Pair:
    first, second = (
        local.served_at(stack.enter_context(server_thread(local.reader)))
        for local in (
            Transport.create(directory / name, CAPACITY, "test", clock=lambda: NOW)
            for name in ("first", "second")
        )
    )
    stack.callback(first.close)
    stack.callback(second.close)
    return first, second


@contextmanager
def server_thread(reader: ArenaReader) -> Iterator[str]:
    """Serve in an event loop of its own, because getting a tensor blocks."""
    loop = asyncio.new_event_loop()
    address: Future[str] = Future()
    stop = asyncio.Event()

    async def serve() -> None:
        async with serving(reader) as bound:
            address.set_result(bound)
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        yield address.result(10)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.fixture(params=[arenas, memories, hosts])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    make: Callable[[Path, ExitStack], Pair] = request.param
    with ExitStack() as stack:
        yield make(tmp_path_factory.mktemp("transport"), stack)


def put(
    transport: Transport, data: bytes, job_id: str = "job", lifetime: float = 60
) -> TensorHandle:
    return transport.put(data, "uint8", (len(data),), job_id=job_id, attempt=1, lifetime=lifetime)


def pattern(nbytes: int, seed: int = 1) -> bytes:
    return bytes((seed * 31 + i) % 251 for i in range(251)) * (nbytes // 251) + bytes(nbytes % 251)


@pytest.mark.parametrize("nbytes", [0, 1, INLINE_LIMIT, BIG, 1_000_003, 5 << 20])
def test_what_one_puts_the_other_gets(pair: Pair, nbytes: int) -> None:
    data = pattern(nbytes)
    handle = put(pair[0], data)
    assert pair[1].get(handle) == data
    assert pair[0].get(handle) == data


def test_small_tensors_ride_inline_and_large_ones_do_not(pair: Pair) -> None:
    assert put(pair[0], bytes(INLINE_LIMIT)).inline is not None
    large = put(pair[0], bytes(BIG))
    assert large.inline is None
    assert large.slot is not None
    assert large.slot.arena == pair[0].name


def test_a_handle_says_what_it_was_given(pair: Pair) -> None:
    handle = pair[0].put(bytes(480), "float32", (2, 3, 20), job_id="j7", attempt=3, lifetime=5)
    assert (handle.dtype, handle.shape, handle.nbytes) == ("float32", (2, 3, 20), 480)
    assert (handle.job_id, handle.attempt, handle.expires_at) == ("j7", 3, NOW + 5)


def test_handles_survive_the_wire(pair: Pair) -> None:
    for data in (pattern(100), pattern(BIG)):
        sent = msgspec.msgpack.encode(put(pair[0], data))
        assert pair[1].get(msgspec.msgpack.decode(sent, type=TensorHandle)) == data


def test_what_was_got_is_a_copy_of_ones_own(pair: Pair) -> None:
    handle = put(pair[0], pattern(BIG))
    pair[1].get(handle)[0] ^= 255
    assert pair[1].get(handle) == pattern(BIG)


def test_data_that_does_not_fit_its_description_is_refused(pair: Pair) -> None:
    wrong: list[tuple[Buffer, str, tuple[int, ...]]] = [
        (bytes(BIG), "uint8", (BIG + 1,)),
        (bytes(8), "float32", (3,)),
        (bytes(8), "complex64", (1,)),
        (bytes(1), "uint8", (-1, -1)),
        (memoryview(bytes(8))[::2], "uint8", (4,)),
    ]
    for data, dtype, shape in wrong:
        with pytest.raises(ValueError, match=r"data|dtype"):
            pair[0].put(data, dtype, shape, job_id="job", attempt=1, lifetime=1)


def test_what_was_freed_is_lost_and_the_rest_is_not(pair: Pair) -> None:
    freed, kept = put(pair[0], pattern(BIG, 1)), put(pair[0], pattern(BIG, 2))
    assert pair[0].free(freed)
    with pytest.raises(HandleLost):
        pair[1].get(freed)
    assert pair[1].get(kept) == pattern(BIG, 2)


def test_freeing_again_or_from_elsewhere_or_inline_does_nothing(pair: Pair) -> None:
    handle = put(pair[0], pattern(BIG))
    assert not pair[1].free(handle)
    assert pair[0].free(handle)
    assert not pair[0].free(handle)
    assert not pair[0].free(put(pair[0], b"small"))


def test_a_slot_that_was_recycled_is_lost_to_its_earlier_handle(pair: Pair) -> None:
    first = put(pair[0], pattern(BIG, 1))
    pair[0].free(first)
    second = put(pair[0], pattern(BIG, 2))
    with pytest.raises(HandleLost):
        pair[1].get(first)
    assert not pair[0].free(first)
    assert pair[1].get(second) == pattern(BIG, 2)


def test_a_job_is_released_as_a_whole_and_alone(pair: Pair) -> None:
    ended = [put(pair[0], pattern(BIG, seed), "ended") for seed in range(3)]
    running = put(pair[0], pattern(BIG), "running")
    assert pair[0].release_job("ended") == 3
    assert pair[0].release_job("ended") == 0
    assert pair[0].release_job("never seen") == 0
    for handle in ended:
        with pytest.raises(HandleLost):
            pair[1].get(handle)
    assert pair[1].get(running) == pattern(BIG)


def test_lifetimes_end_on_time_and_not_before(pair: Pair) -> None:
    short, long = put(pair[0], pattern(BIG), lifetime=5), put(pair[0], pattern(BIG), lifetime=50)
    assert pair[0].expire(NOW + 4.9) == 0
    assert pair[1].get(short) == pattern(BIG)
    assert pair[0].expire(NOW + 5) == 1
    with pytest.raises(HandleLost):
        pair[1].get(short)
    assert pair[1].get(long) == pattern(BIG)


def test_the_capacity_is_refused_by_name_and_comes_back(pair: Pair) -> None:
    held = put(pair[0], bytes(CAPACITY * 3 // 4))
    with pytest.raises(ArenaFull, match=f"{pair[0].name} has no room for {CAPACITY // 2}"):
        put(pair[0], bytes(CAPACITY // 2))
    assert pair[0].free(held)
    assert len(pair[1].get(put(pair[0], bytes(CAPACITY // 2)))) == CAPACITY // 2


def test_what_was_closed_is_lost(pair: Pair) -> None:
    handle = put(pair[0], pattern(BIG))
    pair[0].close()
    pair[0].close()
    with pytest.raises(HandleLost):
        pair[1].get(handle)


def test_wrong_inline_bytes_are_lost(pair: Pair) -> None:
    handle = msgspec.structs.replace(put(pair[0], b"right"), inline=b"wrong")
    with pytest.raises(HandleLost, match="checksum"):
        pair[1].get(handle)


NUMBERS = st.one_of(
    st.integers(-2, 4),
    st.sampled_from([-(2**63), 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64, 2**80, BIG, CAPACITY]),
    st.integers(-(2**70), 2**70),
)
NAMES = st.one_of(
    st.sampled_from(["", ".", "..", "/etc/passwd", "../../x", "a\0b", "x-1-1-00000000", "é" * 300]),
    st.text(max_size=20),
)
ADDRESSES = st.sampled_from(
    ["", ":", "nowhere", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:-1", "127.0.0.1:9999999", "\0:1"]
)
FIELDS = {
    "host": NAMES,
    "arena": NAMES,
    "slot": NUMBERS,
    "generation": NUMBERS,
    "offset": NUMBERS,
    "address": ADDRESSES,
}


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    forged_place=st.fixed_dictionaries({}, optional=FIELDS),
    nbytes=st.one_of(st.just(BIG), NUMBERS.filter(lambda n: n >= 0)),
    checksum=st.one_of(st.none(), NUMBERS),
)
def test_a_forged_handle_cannot_be_made_or_is_lost_and_nothing_worse(
    pair: Pair, forged_place: dict[str, object], nbytes: int, checksum: int | None
) -> None:
    real = put(pair[0], pattern(BIG))
    assert real.slot is not None
    try:
        place = msgspec.structs.replace(real.slot, **forged_place)
        forged = msgspec.structs.replace(
            real,
            slot=place,
            nbytes=nbytes,
            shape=(nbytes,),
            checksum=real.checksum if checksum is None else checksum,
        )
    except ValueError as error:
        refused = str(error).partition(":")[0]
    else:
        refused = ""
    if refused:
        assert refused in {*FIELDS, "shape", "checksum"}
        assert pair[0].free(real)
        return
    try:
        data = pair[1].get(forged)
    except HandleLost:
        assert forged != real
    else:
        # Where to pull it from does not matter to who need not pull it.
        place = msgspec.structs.replace(place, address=real.slot.address)
        assert msgspec.structs.replace(forged, slot=place) == real
        assert data == pattern(BIG)
    assert pair[0].free(real)


@pytest.mark.parametrize("dtype", sorted(DTYPE_BYTES))
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 100, 129)])
def test_tensors_of_every_dtype_and_shape_arrive_writable(
    pair: Pair, dtype: str, shape: tuple[int, ...]
) -> None:
    sent = (torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 50).to(
        getattr(torch, dtype)
    )
    handle = put_tensor(pair[0], sent, job_id="job", attempt=1, lifetime=60)
    received = get_tensor(pair[1], handle)
    assert received.dtype == sent.dtype
    assert received.shape == sent.shape
    assert torch.equal(received, sent)
    received.fill_(3)
    assert torch.equal(get_tensor(pair[1], handle), sent)


def test_tensors_that_are_strided_or_need_gradients_arrive_too(pair: Pair) -> None:
    sent = torch.arange(400_000.0, requires_grad=True).reshape(500, 800).T[::2]
    handle = put_tensor(pair[0], sent, job_id="job", attempt=1, lifetime=60)
    assert torch.equal(get_tensor(pair[1], handle), sent.detach())


def test_a_tensor_of_an_unknown_dtype_is_refused(pair: Pair) -> None:
    with pytest.raises(ValueError, match="complex64"):
        put_tensor(
            pair[0], torch.zeros(2, dtype=torch.complex64), job_id="j", attempt=1, lifetime=1
        )


def test_a_transport_prints_itself(pair: Pair) -> None:
    put(pair[0], pattern(BIG))
    assert pair[0].name in repr(pair[0])
