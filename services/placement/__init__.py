"""Says which process holds which components, by what jobs ask for and how long it takes."""
