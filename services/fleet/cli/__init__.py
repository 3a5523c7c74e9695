"""The command `darkroom`."""

from services.fleet.cli.app import main

__all__ = ["main"]
