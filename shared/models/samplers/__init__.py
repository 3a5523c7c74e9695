"""Samplers that may be asked for, and the schedulers of diffusers behind them."""
