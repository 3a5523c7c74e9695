"""Messages with something wrong in them: made from good ones, the same for the same seed. Pure."""

import random
from typing import Any, Final

import msgspec

_ODD: Final[tuple[Any, ...]] = (
    None, True, 0, -1, 1, 2**31, 2**63, -(2**63), 2**64 - 1, 0.5, float("nan"), float("inf"), -0.0,
    "", "\0", "../../etc/passwd", "a" * 70, "x" * 100_000, "é\u202e😀", "dr.v1.>", b"", b"\xff" * 9,
    [], {}, [[]] * 50, {"type": "generate"}, {"a": {"b": {"c": []}}},
)  # fmt: skip
_MOST_MISTAKES: Final = 3


def mutated(chance: random.Random, good: object) -> bytes:
    """MessagePack of `good` (a struct or builtins) with one to three mistakes in it: odd values,
    missing and unknown keys, and below that bytes flipped, cut off, repeated or left out."""
    if chance.random() < 0.6:
        value = msgspec.to_builtins(good, builtin_types=(bytes,))
        for _ in range(chance.randint(1, _MOST_MISTAKES)):
            value = odd_value(chance, value)
        return msgspec.msgpack.encode(value)
    data = msgspec.msgpack.encode(good)
    for _ in range(chance.randint(1, _MOST_MISTAKES)):
        data = odd_bytes(chance, data)
    return data


def odd_value(chance: random.Random, value: Any) -> Any:
    """`value` with one mistake, somewhere inside if it has an inside."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if value and isinstance(value, list | tuple)
        else ()
    )
    places = list(inner)
    if not places or chance.random() < 0.1:
        return chance.choice(_ODD)
    key, old = chance.choice(places)
    changed = dict(value) if isinstance(value, dict) else list(value)
    match chance.choice(("replace", "replace", "deeper", "deeper", "remove", "add")):
        case "replace":
            changed[key] = chance.choice(_ODD)
        case "deeper":
            changed[key] = odd_value(chance, old)
        case "remove":
            del changed[key]
        case "add" if isinstance(changed, dict):
            changed[f"unknown{chance.randint(0, 9)}"] = chance.choice(_ODD)
        case "add":
            changed.append(chance.choice(_ODD))
    return changed


def odd_bytes(chance: random.Random, data: bytes) -> bytes:
    """`data` with some bytes changed, missing, or there twice."""
    at = chance.randint(0, len(data))
    some = chance.randint(1, 8)
    match chance.choice(("flip", "cut", "insert", "leave out", "repeat", "noise")):
        case "flip":
            return (
                data[:at]
                + bytes(b ^ 1 << chance.randrange(8) for b in data[at : at + 1])
                + (data[at + 1 :])
            )
        case "cut":
            return data[:at]
        case "insert":
            return data[:at] + chance.randbytes(some) + data[at:]
        case "leave out":
            return data[:at] + data[at + some :]
        case "repeat":
            return data[:at] + data[max(0, at - some) : at] * 2 + data[at:]
        case _:
            return chance.randbytes(some * 8)
