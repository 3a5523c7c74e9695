"""Low-rank adapters as networks compute with them: a bank beside the weights, or merged."""
