"""What is brought where, and in which order; what leaves to make room for it."""
