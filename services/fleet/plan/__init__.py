"""Which processes a fleet has, checked before anything is started."""
