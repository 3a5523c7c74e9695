"""What all that works in one process has in common."""

from dataclasses import dataclass, field

from shared.bus.base import Bus
from shared.config import Settings
from shared.telemetry.metrics import Metrics
from shared.worker.memory_budget import MemoryBudget


@dataclass(slots=True)
class Context:
    """`name`: of the process, unique in the fleet."""

    name: str
    settings: Settings
    metrics: Metrics
    bus: Bus
    budget: MemoryBudget = field(default_factory=lambda: MemoryBudget(0))
    """Over it, nothing is taken."""
