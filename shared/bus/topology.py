"""The streams and buckets that Darkroom needs, with their bounds."""

from typing import Final

from shared import subjects
from shared.bus.base import BucketSpec, StreamSpec, Topology

RESULT_SECONDS: Final = 24 * 3600.0
"""How long results and records are kept."""
DEAD_SECONDS: Final = 30 * 24 * 3600.0
MAX_DEAD: Final = 100_000
"""Jobs that were given up and are kept; of further ones only the outcome is."""
MAX_SUBMITTED: Final = 10_000
"""Jobs that no planner has looked at yet."""
MAX_INPUTS: Final = 100_000
"""Images that jobs came with, kept as long as their records."""
MAX_WORK: Final = 100_000
"""Nodes that wait or run, over all models."""

TOPOLOGY: Final = Topology(
    streams=(
        StreamSpec(
            name=subjects.JOBS,
            subjects=(subjects.ALL_SUBMITS,),
            work_queue=True,
            max_messages=MAX_SUBMITTED,
        ),
        StreamSpec(
            name=subjects.WORK,
            subjects=(subjects.ALL_WORK,),
            work_queue=True,
            max_messages=MAX_WORK,
        ),
        StreamSpec(
            name=subjects.RESULTS,
            subjects=(subjects.ALL_RESULTS,),
            work_queue=False,
            max_age=RESULT_SECONDS,
        ),
        StreamSpec(
            name=subjects.INPUTS,
            subjects=(subjects.ALL_INPUTS,),
            work_queue=False,
            max_age=RESULT_SECONDS,
            max_messages=MAX_INPUTS,
        ),
        StreamSpec(
            name=subjects.DEAD,
            subjects=(subjects.ALL_DEAD,),
            work_queue=False,
            max_age=DEAD_SECONDS,
            max_messages=MAX_DEAD,
        ),
    ),
    buckets=(
        BucketSpec(name=subjects.RECORDS, max_age=RESULT_SECONDS),
        BucketSpec(name=subjects.PLACEMENT),
        BucketSpec(name=subjects.MODELS),
    ),
)
