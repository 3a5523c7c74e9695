"""Runs of a simulated cluster: what it is offered, what came of it, and searches over such runs."""
