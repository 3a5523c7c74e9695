"""Processes and devices in virtual time. Deterministic."""
