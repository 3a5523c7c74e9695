"""One folder per process."""
