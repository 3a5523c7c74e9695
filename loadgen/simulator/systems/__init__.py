"""What serves requests in the simulator: Darkroom, and what others do."""
