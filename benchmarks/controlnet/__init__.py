"""What a ControlNet adds to a step: in a fleet, where it has a process and a core of its own, and
in diffusers."""
