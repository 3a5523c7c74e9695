"""Where requests go: one Protocol (`base.py`), one module per way to speak to a server."""
