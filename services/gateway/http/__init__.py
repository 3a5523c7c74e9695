"""The edge: who may connect, how bodies are read, and what all handlers share."""
