"""Tensors arrive as they were, piece by piece, whatever their shape."""

import pytest
import torch

from shared.residency import transfer as transfer_module
from shared.residency.loader import Loader
from shared.residency.transfer import Transfer


@pytest.mark.parametrize("shape", [(), (0,), (3,), (5, 7), (2, 3, 4, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_a_tensor_arrives_as_it_was(
    loader: Loader, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(transfer_module, "PIECE_BYTES", 16)
    tensor = (10 * torch.randn(shape)).to(dtype)
    way = Transfer(loader, torch.device("cpu"))
    load = way.begin(tensor)
    found = way.result(load)
    assert torch.equal(found, tensor)
    assert found.dtype == dtype
    assert found.numel() == 0 or found.data_ptr() != tensor.data_ptr()
    assert loader.statistics().bytes == tensor.nbytes


def test_what_is_not_contiguous_arrives_too(loader: Loader) -> None:
    tensor = torch.arange(24).view(2, 3, 4).permute(2, 0, 1)
    way = Transfer(loader, torch.device("cpu"))
    assert torch.equal(way.result(way.begin(tensor)), tensor)


@pytest.mark.parametrize(("device", "on_disk", "needed"), [("cpu", False, False), ("cpu", True, True), ("meta", False, True)])  # fmt: skip  # noqa: E501
def test_what_lies_in_memory_need_not_be_brought_to_a_cpu(
    loader: Loader, device: str, on_disk: bool, needed: bool
) -> None:
    assert Transfer(loader, torch.device(device)).needed(on_disk) == needed
