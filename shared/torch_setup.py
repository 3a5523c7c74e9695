"""How torch is set up in every process that computes."""

import torch


def prepare_torch(threads: int) -> None:
    """Use `threads` threads for one operation (0: as torch decides); no gradients, ever."""
    if threads > 0:
        torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
