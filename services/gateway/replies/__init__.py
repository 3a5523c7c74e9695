"""Answers: errors and results as JSON, and the middleware around every handler."""
