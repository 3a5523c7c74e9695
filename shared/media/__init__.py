"""Images as users send them, read as a viewer shows them."""
