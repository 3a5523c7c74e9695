"""`darkroom load` and `python -m loadgen`."""
