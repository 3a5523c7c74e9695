"""What a process asks of the machine it runs on: signals, exits, memory, open files, torch's
settings."""
