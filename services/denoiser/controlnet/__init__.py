"""Rows with ControlNets: what was asked, the exchange of residuals, and the client that
asks."""
