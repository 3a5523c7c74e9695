"""Jobs that were given up: read, tried again, reported."""
