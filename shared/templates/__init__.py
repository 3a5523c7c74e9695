"""What was computed of pictures that are edited again and again, shared by a host's denoisers."""
