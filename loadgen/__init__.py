"""Load for image servers: what is sent when, decided beforehand, and what became of it."""
