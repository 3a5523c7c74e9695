"""Which blocks of a step use their caches: the optimal plan against every plan and simpler
rules."""
