"""Weights on pages that the processes of a host share: mapped from files of the dtype in use."""
