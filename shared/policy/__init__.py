"""Every decision, as a pure function of its arguments: no clock, no input or output, no torch."""
