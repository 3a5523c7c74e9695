"""Activation caches of edited images (InstGenIE, arXiv 2505.20600): stored, prefetched,
recorded."""
