"""What a study may be asked for, by name."""

from typing import Final, Literal, get_args

Name = Literal["darkroom", "static", "swap", "partition"]
"""A system that serves."""
What = Literal["rate", "burst", "devices"]
"""Something that is searched: the most, or the fewest."""

OURS: Final[Name] = "darkroom"
SYSTEMS: Final[tuple[Name, ...]] = get_args(Name)
WHATS: Final[tuple[What, ...]] = get_args(What)
MOST_DEVICES: Final = 1024
