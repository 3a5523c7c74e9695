"""200 edits with cached masks against the same edits computed exactly."""
