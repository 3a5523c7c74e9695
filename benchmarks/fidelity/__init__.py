"""What the two approximations that may be asked for do to pictures, against the exact ones."""
