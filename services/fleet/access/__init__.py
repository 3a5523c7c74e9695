"""Keys, certificates and permissions of a fleet's processes."""
