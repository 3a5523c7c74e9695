"""What all processes have in common: the bus, telemetry, arenas, an orderly end."""
