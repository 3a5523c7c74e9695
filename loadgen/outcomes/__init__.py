"""What became of requests, and what the machines did meanwhile."""
