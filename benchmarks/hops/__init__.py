"""What the way between two processes costs: for a piece of work, and for a tensor."""
