"""One image in flight with all of its state, and what a feature of rows may say."""
