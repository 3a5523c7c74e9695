"""The optimal plan of a step's activation caches: which blocks are read, and which computed."""
