"""Who wrote what about one node, judged from its states, one revision after another. Pure.

What is written under a lease comes from one process: its checkpoints advance, its tensors lie in
one arena, and what it finished stays as it is for as long as the attempt counts.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Literal

from shared.jobs.record import NodeState
from shared.messages.handle import TensorHandle

WriteRule = Literal[
    "attempt went back",
    "lease went back",
    "checkpoint went back",
    "two writers under one lease",
    "outputs replaced",
]
Found = Iterator[tuple[WriteRule, str]]


def node_violations(states: Sequence[NodeState]) -> Found:
    """Every rule that the sequence breaks, with what happened."""
    written = _UnderLease()
    for earlier, later in pairwise(states):
        yield from _backwards(earlier, later)
        yield from _replaced(earlier, later)
        yield from written.take(earlier, later)


def _backwards(earlier: NodeState, later: NodeState) -> Found:
    if later.attempt < earlier.attempt:
        yield "attempt went back", f"from {earlier.attempt} to {later.attempt}"
    elif later.attempt == earlier.attempt and later.lease < earlier.lease:
        yield "lease went back", f"from {earlier.lease} to {later.lease}, attempt {later.attempt}"


def _replaced(earlier: NodeState, later: NodeState) -> Found:
    if earlier.status != "done" or later.attempt != earlier.attempt:
        return
    if (later.status, later.outputs, later.worker) != ("done", earlier.outputs, earlier.worker):
        yield "outputs replaced", f"of {earlier.worker}, in attempt {earlier.attempt}"


class _UnderLease:
    """What has been written under the lease that the node is held by now."""

    def __init__(self) -> None:
        self._lease = (1, 1)
        self._step: int | None = None
        self._arenas: frozenset[str] = frozenset()

    def take(self, earlier: NodeState, later: NodeState) -> Found:
        if (later.attempt, later.lease) != self._lease:
            # No event changes more than this: what else is new was written by somebody unseen.
            self._lease, self._step, self._arenas = (later.attempt, later.lease), None, frozenset()
            return
        kept = later.checkpoint
        if kept is not None and kept != earlier.checkpoint:
            # The first one of a holder may be an earlier one than its predecessor's, which it could
            # not read; afterwards it only goes on.
            if self._step is not None and kept.step < self._step:
                yield "checkpoint went back", f"from step {self._step} to {kept.step}{self._under}"
            self._step = kept.step
            yield from self._writer(_arenas(kept.tensors.values()))
        if later.status == "done" and earlier.status != "done":
            yield from self._writer(_arenas(later.outputs.values()))

    def _writer(self, arenas: frozenset[str]) -> Found:
        if self._arenas and arenas and arenas != self._arenas:
            names = f"{sorted(self._arenas)} and {sorted(arenas)}"
            yield "two writers under one lease", f"{names}{self._under}"
        self._arenas = arenas or self._arenas

    @property
    def _under(self) -> str:
        return f", attempt {self._lease[0]}, lease {self._lease[1]}"


def _arenas(tensors: Iterable[TensorHandle]) -> frozenset[str]:
    return frozenset(handle.slot.arena for handle in tensors if handle.slot is not None)
