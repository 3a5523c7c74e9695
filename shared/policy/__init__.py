"""Every decision, as a pure function of what it is told: no clock, no input or output, no torch."""
