"""Imported by Python at the start of every process of a chaos fleet, and of no other: this
directory is on their PYTHONPATH only. See `tests/chaos/fleet/injection.py`."""

import os
import traceback

try:
    from tests.chaos.fleet import injection

    injection.install()
except BaseException:  # which Python would report and ignore: the fault would be missing unnoticed
    traceback.print_exc()
    os._exit(3)
