"""What is requested, and when."""
