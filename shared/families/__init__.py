"""Model families: everything in which one architecture differs from another (see `base`)."""
