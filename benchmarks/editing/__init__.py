"""Edits of well-known pictures: computed where their masks show them, in full, and by diffusers."""
