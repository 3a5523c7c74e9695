"""A report as one HTML page, or as a table."""
