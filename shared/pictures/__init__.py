"""Picture files that users send, read in one way for images, masks and hints: see docs/pictures.md.
No torch here."""
