"""Who may report about a node, and what it means when the one who could is never heard of again.

A lease is the right of one holder to report about one attempt of a node. The first delivery of an
attempt holds lease 1 without a word; whoever gets the node again has to claim it, which makes the
lease one larger. Reports under an older lease are refused (a fencing token, as in Kleppmann 2016,
"How to do distributed locking"), so a process that was stopped and wakes up can harm nothing. A
server that was killed may hand out a delivery twice as the first; of two who believe to have the
same lease, the first to write is its holder.

A holder that gives the node back says so. One that does not has lost its lease: its process died,
or hung. That proves nothing yet, about the node or those that ran beside it. A node that was lost
`SUSPECT` times without progress in between is a suspect. It runs alone, which is marked in the
record first; if its process is lost while the mark stands, that is a kill, and `MAX_KILLS` of them
are proof. Progress, a checkpoint at a later step, acquits. A suspect is claimed only when its turn
to be alone has come: the deaths it waited through are not its own.
"""

from typing import Final

import msgspec

from shared.errors import Poisoned
from shared.jobs.record import Checkpoint, NodeState

SUSPECT: Final = 2
"""Leases lost without progress after which a node runs alone."""
MAX_KILLS: Final = 2
"""Processes lost while they computed this node alone, after which its job is dead-lettered."""
MAX_LOSSES: Final = 12
"""Leases lost without progress, alone or beside others, after which it is as well: something kills
its process before it can be marked."""


def claim(state: NodeState, holder: str, alone: bool) -> NodeState:
    """The node in the hands of the next holder; its last one vanished, unless it gave it back."""
    lost = not state.vacant
    return msgspec.structs.replace(
        state,
        lease=state.lease + 1,
        holder=holder,
        vacant=False,
        alone=alone,
        losses=state.losses + lost,
        kills=state.kills + (lost and state.alone),
    )


def give_back(state: NodeState) -> NodeState:
    return msgspec.structs.replace(state, vacant=True, alone=False)


def isolate(state: NodeState, holder: str) -> NodeState:
    return msgspec.structs.replace(state, holder=holder, alone=True)


def progress(state: NodeState, holder: str, checkpoint: Checkpoint, alone: bool) -> NodeState:
    """The node with `checkpoint`, which acquits it if it is a later one. It is an earlier one when
    the last could not be read, and the steps up to it are taken again."""
    later = state.checkpoint is None or checkpoint.step > state.checkpoint.step
    return msgspec.structs.replace(
        state,
        holder=holder,
        checkpoint=checkpoint,
        alone=alone,
        losses=0 if later else state.losses,
        kills=0 if later else state.kills,
    )


def begin_attempt(state: NodeState) -> NodeState:
    """The next attempt, which nobody holds yet. What speaks against the node is not forgotten."""
    return msgspec.structs.replace(
        state, attempt=state.attempt + 1, lease=1, holder="", vacant=False, alone=False
    )


def may_write(state: NodeState, lease: int, holder: str) -> bool:
    return lease == state.lease and state.holder in ("", holder)


def is_suspect(state: NodeState, unclaimed: bool) -> bool:
    """`unclaimed`: it came again, and the loss that this may mean is not on record yet."""
    return state.losses + (unclaimed and not state.vacant) >= SUSPECT


def verdict(job_id: str, state: NodeState) -> Poisoned | None:
    """Whether the node has killed often enough to be kept away from further processes."""
    if state.kills >= MAX_KILLS or state.losses >= MAX_LOSSES:
        return Poisoned(job_id, state.node.name, state.kills, state.losses)
    return None
