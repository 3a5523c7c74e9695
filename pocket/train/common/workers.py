"""One training shared between processes: on a CPU two workers of one thread each."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import torch
from torch.multiprocessing.spawn import spawn

from pocket.train.common.run import Run

WORKERS = 2
PATIENCE = timedelta(days=1)  # a run may be stopped for long, and its workers at different moments


def in_workers(run: Run, job: Callable[[Run], None]) -> None:
    """Do `job`, a function of a module, once on a GPU or in WORKERS processes on a CPU.

    At the pocket models' size a step of two threads takes about as long as one of one thread.
    """
    if run.device.type == "cuda":
        job(run)
        return
    with tempfile.TemporaryDirectory() as meeting:
        spawn(_work, (run, meeting, job), nprocs=WORKERS)  # type: ignore[no-untyped-call]


def _work(rank: int, run: Run, meeting: str, job: Callable[[Run], None]) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{meeting}/store",
        rank=rank,
        world_size=WORKERS,
        timeout=PATIENCE,
    )
    job(replace(run, rank=rank, world=WORKERS))
    torch.distributed.destroy_process_group()
