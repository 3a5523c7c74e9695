"""Computes what ControlNets add to the steps of denoisers."""
