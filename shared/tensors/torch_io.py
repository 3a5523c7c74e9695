"""Torch tensors over a transport. The only module here that imports torch."""

import torch

from shared.host.crash_points import reached
from shared.messages.handle import TensorHandle
from shared.tensors.transport import Transport


def put_tensor(
    transport: Transport,
    tensor: torch.Tensor,
    *,
    job_id: str,
    attempt: int,
    lifetime: float,
) -> TensorHandle:
    """Put a tensor of any device and layout, for `lifetime` seconds or until it is released.

    Raises `ArenaFull`, or `ValueError` for a dtype that handles do not know."""
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    # As bytes, because numpy, which lends us its buffer, has no bfloat16.
    data = flat.view(torch.uint8).numpy().data if flat.numel() else b""
    reached("write.before")
    handle = transport.put(
        data,
        str(tensor.dtype).removeprefix("torch."),
        tuple(tensor.shape),
        job_id=job_id,
        attempt=attempt,
        lifetime=lifetime,
    )
    reached("write.after")
    return handle


def get_tensor(
    transport: Transport, handle: TensorHandle, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """The tensor behind a handle, writable, in memory of its own. Raises `HandleLost`."""
    dtype = getattr(torch, handle.dtype)
    assert isinstance(dtype, torch.dtype)
    data = transport.get(handle)
    if not data:
        return torch.empty(handle.shape, dtype=dtype, device=device)
    return torch.frombuffer(data, dtype=dtype).reshape(handle.shape).to(device)
