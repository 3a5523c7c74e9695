"""A `denoise` node of a job: its rows are built, followed, checkpointed and reported."""
