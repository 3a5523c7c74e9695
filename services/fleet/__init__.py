"""Starts, watches and stops all processes of one machine; the command line."""
