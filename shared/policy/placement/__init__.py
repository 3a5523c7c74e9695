"""Which process holds which components, and how many processes there are.

`place` in `place.py` and `scale` in `scale.py` are the decisions, `state.py` is what they are made
from, `lateness.py` is what they minimise.
"""
