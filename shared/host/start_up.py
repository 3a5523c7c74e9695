"""Imported first by a process that serves: until it is ready, nothing is collected.

Nearly all that it imports and loads stays, and to go through it again and again takes a sixth of
the time of its start. `Process.serve` turns the collector on again.
"""

import gc

gc.disable()
