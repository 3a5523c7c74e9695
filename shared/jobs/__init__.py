"""A job's life as pure functions: its graph, its record, and what each event makes happen."""
