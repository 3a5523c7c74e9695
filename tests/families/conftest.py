"""Schedulers are made quickly here."""

from tests.helpers.schedulers import quick_schedulers

__all__ = ["quick_schedulers"]
