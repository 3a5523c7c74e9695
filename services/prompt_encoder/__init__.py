"""Turns prompts into text embeddings."""
