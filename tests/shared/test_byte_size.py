"""Bytes as people write them."""

import pytest

from shared.byte_size import ByteSize
from shared.config import Settings
from shared.errors import Misconfigured


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1000", 1000),
        ("8GB", 8 * 10**9),
        ("8 gb", 8 * 10**9),
        ("512MiB", 512 * 2**20),
        ("1.5 GiB", 3 * 2**29),
        ("2TB", 2 * 10**12),
        (" 7B ", 7),
        ("3kB", 3000),
    ],
)
def test_sizes_are_read_with_their_units(text: str, size: int) -> None:
    assert Settings.from_env({"DARKROOM_MEMORY": text}).memory == ByteSize(text) == size


@pytest.mark.parametrize("text", ["", "lots", "-1", "8 G B", "8Gbit", "1e9", "0x10", "8,5GB", "٣"])
def test_what_is_no_size_is_refused_with_the_variable_the_value_and_what_is_allowed(
    text: str,
) -> None:
    with pytest.raises(Misconfigured) as refused:
        Settings.from_env({"DARKROOM_MEMORY": text})
    assert f"DARKROOM_MEMORY={text!r}: allowed: a number of bytes" in refused.value.message
