"""Admission: which of the jobs that wait are released to the services, and which are refused.

`release` in `decide.py` is the decision, `jobs.py` and `load.py` are what it is made from.
"""
