"""The kinds of fields that the HTTP API has: their types, their bounds, and both in words."""
