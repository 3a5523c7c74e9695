"""Pages of files are known, changed without a copy of the rest, and given back."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.models.weights.originals import Originals
from shared.models.weights.pages import FilePages, Span, give_back, span_of, spans_of

MAPS = """\
55d0a000-55d0b000 r--p 00000000 fe:01 131 /usr/bin/python3.11
55d0c000-55d0f000 rw-p 00002000 fe:01 131 /usr/bin/python3.11
55e00000-55f00000 rw-p 00000000 00:00 0 [heap]
7f000000-7f800000 rw-p 00000000 fe:01 977 /models/a b/unet.safetensors
7f800000-7f900000 rw-s 00000000 00:19 42 /dev/shm/arena
7fa00000-7fb00000 rw-p 00000000 00:00 0
"""


def test_private_writable_mappings_of_files_are_known() -> None:
    assert spans_of(MAPS) == [Span(0x55D0C000, 0x55D0F000), Span(0x7F000000, 0x7F800000)]


def test_the_addresses_of_a_tensor_are_those_of_its_numbers() -> None:
    numbers = torch.zeros(4, 6)
    start = numbers.data_ptr()
    assert span_of(numbers) == Span(start, start + 96)
    assert span_of(numbers.t()) == span_of(numbers)
    assert span_of(numbers[1:2, 2:4]) == Span(start + 32, start + 40)


@pytest.fixture
def weights(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file, and what is mapped of it: some pages each, which do not begin at a page."""
    drawn = torch.Generator().manual_seed(0)
    path = tmp_path / "weights.safetensors"
    save_file({name: torch.randn(50, 100, generator=drawn) for name in "abc"}, path)
    return path, load_file(path)


@pytest.mark.linux
def test_what_was_changed_is_what_the_file_says_again(
    weights: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    path, mapped = weights
    written = path.read_bytes()
    expected = {name: tensor.clone() for name, tensor in mapped.items()}
    assert all(map(FilePages.mapped().hold, mapped.values()))
    mapped["b"].mul_(2.0)
    assert not torch.equal(mapped["b"], expected["b"])
    give_back([mapped["b"]])
    assert all(torch.equal(mapped[name], expected[name]) for name in mapped)
    assert path.read_bytes() == written


@pytest.mark.linux
def test_what_was_computed_lies_on_no_file(
    weights: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    _, mapped = weights
    pages = FilePages.mapped()
    own = mapped["a"] + 1.0
    assert not pages.hold(own)
    assert not pages.hold(torch.zeros(0))
    assert pages.private_bytes([own, *mapped.values()]) == own.nbytes


def test_originals_come_back_bit_for_bit(weights: tuple[Path, dict[str, torch.Tensor]]) -> None:
    _, mapped = weights
    own = torch.tensor([0.1, -0.0, float("nan")])
    changed = [mapped["a"], mapped["c"].t(), own]
    expected = [tensor.clone() for tensor in changed]
    originals, pages = Originals(), FilePages.mapped()
    for _ in range(2):
        for tensor in changed:
            originals.keep(tensor, pages)
            tensor.add_(1.0)
        originals.restore()
        for tensor, before in zip(changed, expected, strict=True):
            assert torch.equal(tensor.view(torch.int32), before.view(torch.int32))
