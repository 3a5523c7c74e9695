"""What components cost: seconds by batch, bytes, seconds to load; published, or measured here."""
