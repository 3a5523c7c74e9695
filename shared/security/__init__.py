"""Who may do what: keys, tokens, private files, and addresses that are safe to listen at."""
