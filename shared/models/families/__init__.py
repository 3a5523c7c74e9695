"""One folder for each architecture; all in which it differs from others is in there."""
