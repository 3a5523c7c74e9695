"""What a process does about its components. Pure."""
