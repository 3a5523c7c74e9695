"""Schedulers are made quickly here."""

from tests.helpers.quantiles import quantiles

__all__ = ["quantiles"]
